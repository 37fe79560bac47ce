# SPDX-License-Identifier: Apache-2.0
"""Random machines and networks: a seed stays the same, a run goes on, and a difference shows."""

import json

import pytest

from sim import soak as command
from sim.accelerator import check as checking
from sim.accelerator import soak


def test_a_seed_is_always_the_same_and_few_share_a_machine():
    one, again = soak.draw(5), soak.draw(5)
    assert one.network.config == again.network.config and one.images.equal(again.images)
    assert (one.network.spec, one.latency, one.stall) == (again.network.spec, again.latency,
                                                          again.stall)
    configs = {soak.draw(seed).network.config for seed in range(3 * soak.SEEDS)}
    assert len(configs) == 3
    assert len({soak.draw(seed).network.spec for seed in range(soak.SEEDS)}) == soak.SEEDS


@pytest.fixture
def made(monkeypatch):
    """Return the seeds that are run; of seed 2 the Verilog differs."""
    seeds = []

    def ran(seed, directory):
        seeds.append(seed)
        return {"seed": seed, "config": str(seed // 2), "stall": seed % 2, "cycles": 10,
                "wrong": "byte 3 of the output is 1, not 2" if seed == 2 else None}

    monkeypatch.setattr(soak, "ran", ran)
    monkeypatch.setattr(command, "provenance", lambda: {"date": "2000-01-01", "commit": "abc"})
    return seeds


def test_a_run_goes_on_where_it_was(made, tmp_path, capsys, monkeypatch):
    assert command.main(["--seeds", "2", "-o", str(tmp_path)]) == 0
    lines = tmp_path / command.KEPT
    lines.write_text(lines.read_text() + '{"seed": 2, "conf')    # stopped while it was written
    lines.write_text(lines.read_text().replace('{"seed": 2, "conf', ""))
    assert command.main(["--seeds", "4", "-o", str(tmp_path)]) == 1
    assert made == [0, 1, 2, 3]
    shown = capsys.readouterr()
    assert "seed 2: byte 3 of the output is 1, not 2" in shown.err
    assert "4 networks on 2 machines, 40 cycles: 1 different" in shown.out
    found = json.loads((tmp_path / command.RESULTS).read_text())
    assert (found["wrong"], found["stalled"]) == ([2], 2)
    # Of another commit nothing is known.
    monkeypatch.setattr(command, "provenance", lambda: {"date": "2000-01-01", "commit": "def"})
    assert command.main(["--first", "3", "--seeds", "1", "-o", str(tmp_path)]) == 0
    assert made == [0, 1, 2, 3, 3]


def test_half_a_line_is_not_read(tmp_path):
    path = tmp_path / "lines"
    line = json.dumps({"seed": 1, "run": {"commit": "abc"}})
    path.write_text(f'{line}\n{{"seed": 2, "ru')
    assert [*command.known(path, "abc")] == [1]
    assert command.known(path, "def") == {} == command.known(tmp_path / "none", "abc")


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--first", "-1"]])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments):
    assert command.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.rtl
@pytest.mark.thorough
def test_the_verilog_is_compared(tmp_path, monkeypatch):
    found = soak.ran(5, tmp_path)
    assert found["wrong"] is None and found["cycles"] > 1_000
    place = checking.place
    # Another picture than the golden machine has.
    monkeypatch.setattr(checking, "place", lambda blocks: place(
        [blocks[0], bytes(byte ^ 255 for byte in blocks[1]), *blocks[2:]]))
    assert "image 0 on soak-1: byte" in soak.ran(5, tmp_path)["wrong"]
