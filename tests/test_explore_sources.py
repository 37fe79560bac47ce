# SPDX-License-Identifier: Apache-2.0
"""Exploration: what a changed line of code measures again, and that a comment costs nothing."""

import shutil

import pytest

from explore import sources
from explore.measure import row_inputs
from explore.point import Point
from explore.stages import Stages
from explore.store import Found, Store, key
from vitforge.spec.config import load

POINT = Point(space="s", study="s", design="accelerator", values=load("edge8").to_dict(),
              measure=("cycles", "accuracy", "energy"))
#: Stages of a network, which is the golden model's, and those of the gateware.
NETWORK = {"cycles", "energy", "accuracy", "layers", "narrowed", "unit_cycles"}
GATEWARE = {"generate", "exact", "whole"}


class _Keys(Store):
    """A store that measures nothing, and notes the keys of all that it is asked for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.seen = {}

    def get(self, stage, inputs, measure):
        self.seen[stage] = key(inputs)
        return Found({"sha256": "of the Verilog", "fields": {}, "layers": []}, 0, True)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a copy of the project's code, which the hashes are of."""
    for name in sources.PACKAGES:
        shutil.copytree(sources.ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("__pycache__", "cifar10_*"))
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    yield tmp_path
    sources.digest.cache_clear()


def _keys(tree):
    sources.digest.cache_clear()
    store, config = _Keys(tree / "store"), POINT.config()
    stages = Stages(store)
    stages.exact("softmax", config)
    stages.whole(config)
    stages.area("accelerator", config, "ecp5")
    stages.area("accelerator", config, "gates")
    stages.place("accelerator", config, 1, 100.0)
    stages.unit_cycles("softmax", config)
    stages.network(POINT, config, "cycles")
    stages.network(POINT, config, "energy")
    stages.accuracy(POINT, config)
    stages.layers(config)
    stages.narrowed(config, {}, 1)
    return store.seen | {"row": key(row_inputs(POINT))}


def _changed(tree, name, old, new):
    """Return the stages whose keys differ after an edit of one file, and undo it."""
    before, path = _keys(tree), tree / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = _keys(tree)
    path.write_text(text, encoding="utf-8")
    assert before.keys() == after.keys() == {
        *NETWORK, *GATEWARE, "row", "ecp5", "gates", "place"}
    return {stage for stage in before if before[stage] != after[stage]}


SPDX = "# SPDX-License-Identifier: Apache-2.0\n"


@pytest.mark.thorough
def test_prose_costs_nothing(tree):
    for name in ("hw/softmax/unit.py", "hw/accelerator.py", "golden/network/inference.py",
                 "explore/workload.py"):
        assert not _changed(tree, name, SPDX, f"{SPDX}# Another remark.\n\n"), name
        assert not _changed(tree, name, '\n"""', '\n"""In other words. '), name


def test_gateware_measures_no_network_again(tree):
    assert _changed(tree, "hw/softmax/statistics.py", SPDX, f"{SPDX}MORE = 1\n") == {
        "generate", "exact", "row"}
    for path in sorted((tree / "hw").rglob("*.py")):
        path.write_text(path.read_text(encoding="utf-8") + "MORE = 1\n", encoding="utf-8")
    after = _keys(tree)
    for path in sorted((tree / "hw").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.removesuffix("MORE = 1\n"), encoding="utf-8")
    before = _keys(tree)
    assert {name for name in before if before[name] != after[name]} == {*GATEWARE, "row"}


@pytest.mark.parametrize("name, measured", [
    ("golden/network/inference.py", NETWORK - {"unit_cycles"} | {"whole", "row"}),
    ("golden/machine/cycles.py", NETWORK - {"unit_cycles"} | {"whole", "row"}),
    ("golden/units/softmax_cycles.py", NETWORK | {"exact", "whole", "row"}),
    ("vitforge/spec/config.py", {*NETWORK, *GATEWARE, "row"}),
    ("gen/synthesis/netlist.py", {"ecp5", "gates", "place", "row"}),
    ("gen/synthesis/place.py", {"place", "row"}),
])
def test_what_matters_is_measured_again(tree, name, measured):
    assert _changed(tree, name, SPDX, f"{SPDX}MORE = 1\n") >= measured


def test_files_that_no_statement_imports_matter(tree):
    for files in sources.DATA.values():
        assert all((tree / name).is_file() for name in files)
    for name, measured in (("sim/memory.v", {"whole", "row"}),
                           ("sim/waivers.vlt", {"exact", "generate"})):
        path = tree / name
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert measured <= _changed(tree, name, first, f"{first}\n")
