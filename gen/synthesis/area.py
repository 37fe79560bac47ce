# SPDX-License-Identifier: Apache-2.0
"""What a netlist costs: primitives of ECP5 and of Xilinx 7 series, by kind."""

__all__ = ["TARGETS", "Area", "count"]

from collections.abc import Mapping
from dataclasses import asdict, dataclass

#: For each target, kind to primitive to how many of the kind it is.
KINDS: dict[str, dict[str, dict[str, int]]] = {
    "ecp5": {
        "lut": {"LUT4": 1},
        "carry": {"CCU2C": 1},
        "ff": {"TRELLIS_FF": 1},
        "dsp": {"MULT18X18D": 1},
        "bram": {"DP16KD": 1},
        "lutram": {"TRELLIS_DPR16X4": 1},
        "free": {"PFUMX": 1, "L6MUX21": 1},
    },
    "xilinx": {
        "lut": {**{f"LUT{n}": 1 for n in range(1, 7)}, "INV": 1},
        "carry": {"CARRY4": 1},
        "ff": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
        "dsp": {"DSP48E1": 1},
        "bram": {"RAMB18E1": 1, "RAMB36E1": 2},
        # In LUTs, by the user guide of the 7 series CLB (UG474).
        "lutram": {"SRL16E": 1, "SRLC32E": 1, "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2,
                   "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM32M": 4,
                   "RAM64M": 4},
        "free": {"MUXF7": 1, "MUXF8": 1},
    },
}

#: LUTs of a slice that one of a kind takes: an ECP5 carry cell fills two LUTs, a distributed memory
#: four places of LUTs (its two slices); a CARRY4 lies beside its LUTs.
LUT_EQUIVALENTS = {
    "ecp5": {"lut": 1, "carry": 2, "lutram": 4},
    "xilinx": {"lut": 1, "carry": 0, "lutram": 1},
}

TARGETS = tuple(KINDS)


@dataclass(frozen=True, kw_only=True)
class Area:
    """Primitives of one design.

    Attributes
    ----------
    target
        ``ecp5`` or ``xilinx``.
    lut, carry, ff, dsp
        LUT4 or LUT1 to LUT6; CCU2C or CARRY4; flip-flops; MULT18X18D or DSP48E1.
    bram
        DP16KD, or halves of a 36 Kb block RAM.
    lutram
        TRELLIS_DPR16X4, or LUTs used as memory or shift register.
    """

    target: str
    lut: int
    carry: int
    ff: int
    dsp: int
    bram: int
    lutram: int

    @property
    def luteq(self) -> int:
        """LUT equivalents: for ECP5 ``LUT4 + 2 CCU2C + 4 DPR16X4``, for Xilinx LUTs of any use."""
        return sum(getattr(self, kind) * weight
                   for kind, weight in LUT_EQUIVALENTS[self.target].items())

    def to_dict(self) -> dict[str, int | str]:
        """All fields and `luteq`, as plain values."""
        return {**asdict(self), "luteq": self.luteq}


def count(target: str, cells: Mapping[str, int]) -> Area:
    """Sort primitives by kind.

    Raises
    ------
    ValueError
        If a primitive is of no known kind: a design that is not all mapped has no area.
    """
    kinds = KINDS[target]
    known = {cell for table in kinds.values() for cell in table} | {"$scopeinfo"}
    for cell in cells:
        if cell not in known:
            raise ValueError(f"the netlist has {cell}, which is no primitive of {target}")
    totals = {kind: sum(cells.get(cell, 0) * weight for cell, weight in table.items())
              for kind, table in kinds.items() if kind != "free"}
    return Area(target=target, **totals)
