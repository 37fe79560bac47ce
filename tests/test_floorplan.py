# SPDX-License-Identifier: Apache-2.0
"""Places of multipliers: tiles of the array together, engines from left to right."""

import copy
from itertools import product

import pytest

from gen.synthesis.floorplan import COLUMNS, PLACES, ROWS, anchor


def _multiplier(net, enable):
    nets = {"P0": [net], "CE0": ["1"], "CE1": [enable], "CE2": ["1"]}
    return {"type": "MULT18X18D", "connections": nets}


def _module(rows=4, operand=5, lanes=2, diagonal=True):
    """Return an accelerator's netlist; the numbers of its cells don't follow their places."""
    cells = {"other": {"type": "LUT4", "connections": {}}}
    netnames = {}
    for index, (r, c) in enumerate(product(range(rows), repeat=2)):
        net = 1000 + index
        cells[f"design.core.array.${index * 7 % (rows * rows)}_MULT18X18D_P9"] = _multiplier(
            net, r + c if diagonal else index)
        netnames[f"design.core.array.product_{r}_{c}_1"] = {"bits": [net, net + 5000]}
    for index in range(operand):
        cells[f"design.core.operand$31.${100 - index}_MULT18X18D_P9"] = _multiplier(1, "e")
    for lane in range(lanes):
        for number in (20, 9):
            cells[f"design.core.drain.requantizer.scale_{lane}.${number}_MULT18X18D_P9"] = \
                _multiplier(1, "1")
        cells[f"design.core.drain.requantizer.encode_{lane}.$9_MULT18X18D_P9"] = \
            _multiplier(1, "1")
    return {"cells": cells, "netnames": netnames}


def _blocks(module):
    """Return the block of every multiplier that has a place."""
    found = {}
    for name, cell in module["cells"].items():
        bel = cell.get("attributes", {}).get("BEL")
        if bel:
            x, y, place = bel.split("/")
            offset = dict(map(reversed, PLACES))[place]
            found[name] = (COLUMNS.index(int(x[1:]) - offset), ROWS.index(int(y[1:])))
    return found


def test_every_multiplier_has_a_place_of_its_own():
    module = _module()
    assert anchor(module) == 16 + 5 + 6
    bels = [cell["attributes"]["BEL"] for cell in module["cells"].values()
            if cell["type"] == "MULT18X18D"]
    assert len(set(bels)) == len(bels) == 27
    assert "attributes" not in module["cells"]["other"]


def test_array_lies_in_tiles():
    module = _module()
    anchor(module)
    blocks = _blocks(module)
    places = {net["bits"][0]: tuple(map(int, name.split("_")[1:3]))
              for name, net in module["netnames"].items()}
    tiles = {}
    for name, cell in module["cells"].items():
        if ".array." in name:
            r, c = places[cell["connections"]["P0"][0]]
            tiles.setdefault((r // 2, c // 2), set()).add(blocks[name])
    assert tiles == {(0, 0): {(0, 0)}, (0, 1): {(0, 1)}, (1, 0): {(0, 2)}, (1, 1): {(1, 0)}}


def test_engines_and_lanes_follow_each_other():
    module = _module()
    anchor(module)
    order = sorted(((*block, module["cells"][name]["attributes"]["BEL"]), name)
                   for name, block in _blocks(module).items())
    names = [name.removesuffix("_MULT18X18D_P9") for _, name in order if "array" not in name]
    assert names == [*(f"design.core.operand$31.${number}" for number in range(96, 101)),
                     *(f"design.core.drain.requantizer.{part}" for part in (
                         "encode_0.$9", "scale_0.$9", "scale_0.$20",
                         "encode_1.$9", "scale_1.$9", "scale_1.$20"))]


@pytest.mark.parametrize("module", [
    _module(diagonal=False),                    # five enables in a block
    _module(operand=4 * (39 - 4 - 2) + 1),      # a block too many
    {"cells": {**_module()["cells"], "design.other.$1_MULT18X18D_P9": _multiplier(1, "1")}},
])
def test_nothing_is_done_by_halves(module):
    before = copy.deepcopy(module)
    assert anchor(module) == 0
    assert module == before


def test_all_blocks_may_be_used():
    assert anchor(_module(operand=4 * (39 - 4 - 2))) == 16 + 132 + 6
