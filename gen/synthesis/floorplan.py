# SPDX-License-Identifier: Apache-2.0
"""Places for the multipliers of an accelerator on an LFE5U-85F, and through them for all the rest.

A placer that knows no pins has nothing to hold on to: its first solution is a point, and what it
becomes when it is spread is chance. The multipliers lie in three rows across the chip, and most of
them are in use; so they get places of their own, and everything else finds its place beside them.
From left to right: the array, in tiles of two by two; the operand path; the drain. A block of four
multipliers takes at most four different enables, which such a tile doesn't exceed: a weight is
taken over along a diagonal.
"""

__all__ = ["FloorplanError", "anchor"]

import re
from typing import Any

from vitforge.spec.names import PRODUCT

#: Blocks from left to right, the rows that have them, and the multipliers of a block.
COLUMNS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
ROWS = (58, 34, 10)
PLACES = ((0, "MULT18_0"), (1, "MULT18_1"), (4, "MULT18_4"), (5, "MULT18_5"))
#: Of the engines that have multipliers, the order from left to right.
ENGINES = ("array", "operand", "drain")
ENABLES = 4
#: The register of a processing element's product, by row and column; a multiplier ends in it.
_PRODUCT = re.compile(rf"\.array(?:\.grid)?\.{PRODUCT}(\d+)_(\d+)_1$")


class FloorplanError(ValueError):
    """A netlist whose multipliers can't get places; the message says which, and why."""


def _order(name: str) -> tuple[str, int, str, int]:
    """Sort by module, lane, and the number behind $, which counts the expressions of a module."""
    parts = re.match(r"(.*?)(?:\.(\w+)_(\d+))?\.\$(\d+)_[^.]*$", name)
    if parts is None:
        return name, 0, "", 0
    return parts[1], int(parts[3] or 0), parts[2] or "", int(parts[4])


def _tiles(names: list[str], products: dict[Any, tuple[int, int]], cells: Any) -> list[list[str]]:
    """Group the array's multipliers by two rows and two columns."""
    tiles: dict[tuple[int, int], list[str]] = {}
    for name in names:
        net = cells[name]["connections"].get("P0", [None])[0]
        if net not in products:
            raise FloorplanError(f"{name} ends in no register {PRODUCT}ROW_COLUMN of the array: "
                                 "its place in the array is unknown")
        row, column = products[net]
        tiles.setdefault((row // 2, column // 2), []).append(name)
    return [tiles[place] for place in sorted(tiles)]


def anchor(module: Any) -> int:
    """Give the multipliers of an accelerator's flat netlist their places, as ``BEL`` attributes.

    Nothing is done by halves: all get places, or none and an error.

    Parameters
    ----------
    module
        Of the JSON of Yosys; changed in place.

    Returns
    -------
    int
        Multipliers that have a place now.

    Raises
    ------
    FloorplanError
        If there are no multipliers, or not enough blocks for them, if one is in no engine, or has
        no known place in the array, or if a block had more enables than it takes.
    """
    cells = module["cells"]
    engines: dict[str, list[str]] = {engine: [] for engine in ENGINES}
    for name, cell in cells.items():
        if cell["type"] == "MULT18X18D":
            found = re.search(rf"\.core\.({'|'.join(ENGINES)})\b", name)
            if found is None:
                raise FloorplanError(f"{name} is in none of the engines {', '.join(ENGINES)}")
            engines[found[1]].append(name)
    products = {}
    for name, net in module.get("netnames", {}).items():
        place = _PRODUCT.search(name)
        if place:
            products[net["bits"][0]] = (int(place[1]), int(place[2]))

    blocks = _tiles(engines["array"], products, cells)
    for engine in ENGINES[1:]:
        names = sorted(engines[engine], key=_order)
        blocks += [names[first:first + len(PLACES)] for first in range(0, len(names), len(PLACES))]
    sites = [(column, row) for column in COLUMNS for row in ROWS]
    if not 0 < len(blocks) <= len(sites):
        raise FloorplanError(f"{sum(map(len, engines.values()))} multipliers take {len(blocks)} "
                             f"blocks of the chip's {len(sites)}")
    enables = ({cells[name]["connections"].get(f"CE{pin}", ["0"])[0]
                for name in block for pin in range(ENABLES)} - {"0"} for block in blocks)
    for block, nets in zip(blocks, enables, strict=True):
        if len(nets) > ENABLES:
            raise FloorplanError(f"{', '.join(block)} have {len(nets)} enables, and a block takes "
                                 f"{ENABLES}")
    for block, (column, row) in zip(blocks, sites, strict=False):
        for name, (offset, bel) in zip(block, PLACES, strict=False):
            cells[name].setdefault("attributes", {})["BEL"] = f"X{column + offset}/Y{row}/{bel}"
    return sum(map(len, blocks))
