# SPDX-License-Identifier: Apache-2.0
"""What makes a design better: the columns that a study measures, and which of them count."""

__all__ = ["CELLS", "TARGETS", "columns", "order"]

from collections.abc import Iterable

#: Of a netlist, for every target.
CELLS = ("lut", "carry", "ff", "dsp", "bram", "lutram", "luteq")
TARGETS = ("ecp5", "ecp5-lut", "xilinx")
#: By what is measured of a network or an accelerator.
_WHOLE = {
    "cycles": ("cycles", "macs", "utilisation", "bytes", "program_bytes", "passes", "weight_wait",
               "drain_wait", "memory_wait", "clock_mhz", "fps", "products_per_s"),
    "energy": ("energy_uj", *(f"energy.{part}_uj" for part in (
        "array", "scratch", "accumulators", "elements", "memory"))),
}
#: By what is measured of any design.
_ANY = {
    "exact": ("exact_cycles",),
    "cycles": ("row_elements", "latency", "cycles_per_row", "elements_per_cycle"),
    **{target: tuple(f"{target}.{cell}" for cell in CELLS) for target in TARGETS},
    "gates": ("gates.gates", "gates.ff", "gates.memory_bits"),
    "place": ("fmax_mhz", "fmax_low_mhz", "fmax_high_mhz"),
    "accuracy": ("images", "top1", "float_top1", "drop", "alike", "logit_error"),
}


def columns(design: str, measure: Iterable[str]) -> set[str]:
    """Return the columns with numbers that a study's rows have: what an objective may be."""
    wanted = set(measure)
    table = {**_ANY, **_WHOLE} if design in ("accelerator", "network") else _ANY
    found = {name for part in wanted for name in table[part]}
    if "cycles" in wanted and table is not _ANY:
        found |= {f"{target}.{name}" for target in TARGETS if target in wanted
                  for name in ("products_per_s_lut", "products_per_cycle_dsp")}
    if {"ecp5", "cycles"} <= wanted and table is _ANY:
        found.add("luteq_per_element_cycle")
        if "place" in wanted:
            found |= {"elements_per_us", "luteq_ns_per_element"}
    return found


def order(target: str) -> dict[str, str]:
    """Return what counts, the most important first: "min" or "max" by column.

    Speed, the area of a target, loss of accuracy, energy, traffic, then everything else that a
    design may cost.
    """
    cells = [f"{name}.{cell}" for name in (target, *TARGETS) for cell in CELLS]
    return {"fps": "max", "elements_per_us": "max", "elements_per_cycle": "max",
            f"{target}.luteq": "min", "drop": "min", "logit_error": "min", "energy_uj": "min",
            "bytes": "min", f"{target}.dsp": "min", f"{target}.bram": "min",
            **dict.fromkeys(cells, "min"), "gates.gates": "min", "fmax_mhz": "max",
            "latency": "min"}
