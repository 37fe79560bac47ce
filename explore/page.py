# SPDX-License-Identifier: Apache-2.0
"""The results as one HTML page that needs nothing else, not even a network."""

__all__ = ["page"]

import html
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explore.table import Budget

if TYPE_CHECKING:
    import pandas

HERE = Path(__file__).parent

#: What axes are called; others by their column's name.
NAMES = {
    "ecp5.luteq": "LUT equivalents, ECP5", "xilinx.luteq": "LUTs, Xilinx 7",
    "gates.gates": "gates (NAND equivalents)", "drop": "points of top-1 lost",
    "top1": "top-1, %", "logit_error": "error of the logits, %", "fps": "images a second",
    "energy_uj": "energy of an image, µJ (estimate)", "fmax_mhz": "clock rate, MHz",
    "luteq_per_element_cycle": "LUT equivalents per element and cycle",
    "luteq_ns_per_element": "LUT equivalents x ns per element",
    "elements_per_us": "elements a microsecond", "elements_per_cycle": "elements a cycle",
    "ecp5.dsp": "multipliers, ECP5", "xilinx.dsp": "multipliers, Xilinx 7",
    "cycles_per_row": "cycles a row", "bytes": "bytes moved for an image",
    "simulated_top1": "top-1 in float simulation, %", "float_top1": "top-1 of the float network, %",
    "products_per_s": "products a second",
    "ecp5.products_per_s_lut": "products a second and LUT equivalent, ECP5",
    "ecp5.products_per_cycle_dsp": "products a cycle and multiplier of the design, ECP5",
    "xilinx.products_per_cycle_dsp": "products a cycle and DSP of the design, Xilinx 7",
}
#: Columns of which more is better.
BETTER = dict.fromkeys(("top1", "alike", "fps", "fmax_mhz", "elements_per_us",
                        "elements_per_cycle", "utilisation", "simulated_top1", "products_per_s",
                        "ecp5.products_per_s_lut", "ecp5.products_per_cycle_dsp",
                        "xilinx.products_per_cycle_dsp"), "max")
#: Fronts that have a button: text, across, up.
PRESETS = (
    ("top-1 - images/s", "fps", "top1"),
    ("images/s - area", "ecp5.luteq", "fps"),
    ("accuracy - area", "ecp5.luteq", "drop"),
    ("logits - area", "ecp5.luteq", "logit_error"),
    ("elements/µs - area", "ecp5.luteq", "elements_per_us"),
    ("elements/cycle - area", "ecp5.luteq", "elements_per_cycle"),
    ("energy - accuracy", "energy_uj", "drop"),
    ("energy - logits", "energy_uj", "logit_error"),
    ("bytes - logits", "bytes", "logit_error"),
    ("clock - area", "ecp5.luteq", "fmax_mhz"),
)


def page(table: "pandas.DataFrame", title: str, budget: Budget, picture: str = "") -> str:
    """Return the page; JavaScript does the filtering, so everything is in it.

    Parameters
    ----------
    picture
        An SVG that comes first.
    """
    from plotly.offline import get_plotlyjs
    rows: list[dict[str, Any]] = json.loads(table.drop(
        columns=["task", "versions"], errors="ignore").to_json(orient="records"))
    wanted = asdict(budget)
    data = {"rows": rows, "names": NAMES, "better": BETTER, "presets": PRESETS,
            "budget": {name: value for name, value in wanted.items()
                       if name != "target" or f"{value}.luteq" in table.columns}}
    # What could end the element early is written another way.
    text = json.dumps(data).replace("<", "\\u003c")
    parts = {"TITLE": html.escape(title), "PICTURE": picture, "DATA": text,
             "PLOTLY": get_plotlyjs(), "SCRIPT": (HERE / "page.js").read_text(encoding="utf-8")}
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # In one go: what is put in is not looked at again.
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], template)
