# SPDX-License-Identifier: Apache-2.0
"""Corrupted programs: the golden machine and the generated Verilog do the same with them."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

import gen.elaborate
from sim import corrupt as command
from sim.accelerator import corrupt
from vitforge.spec.config import Config, load

pytestmark = pytest.mark.rtl

#: Also arrays whose passes make several words of a token, by columns or by pairs of weights.
TINY = load("tiny")
WIDE = [dataclasses.replace(TINY, name="tiny4x8", cols=8),
        dataclasses.replace(TINY, name="tiny4x16", cols=16),
        dataclasses.replace(TINY, name="tiny8x16", rows=8, cols=16, lanes=4, axi_bits=128),
        dataclasses.replace(TINY, name="tiny-pair", modes="single+pair"),
        dataclasses.replace(TINY, name="tiny4x8-pair", cols=8, modes="single+pair",
                            drain_products="luts")]
#: Two tokens of a multiplier.
QUAD = dataclasses.replace(TINY, name="tiny4x8-quad", cols=8, lanes=4, multiplier="27x18",
                           modes="single+pair+quad", attention="uniform")
#: A machine without the formats that it need not have.
UNIFORM = dataclasses.replace(TINY, name="tiny-uniform", formats="uniform", attention="uniform",
                              attention_bits=8, operand_bits=9, axi_bits=128)


def named(config: Config) -> str:
    return config.name


def compared(runs: int, seed: int, config: Config = TINY, count: int = 100, **stalls: int
             ) -> tuple[list[str], Counter[str]]:
    """Compare `runs` times `count` programs."""
    wrong, seen = [], Counter[str]()
    for number in range(runs):
        more, kinds = corrupt.differences(count, 100 * seed + number, config,
                                          brief=True, **stalls)
        wrong += more
        seen += kinds
    return wrong, seen


def test_what_depends_on_words_that_nobody_wrote_is_not_certain() -> None:
    # Noise in place of log2 codes of 4 bits is 0, whatever it is; memories that are empty are not.
    name, program = list(corrupt.pairs(37, 4, TINY))[-1]
    assert name == "instruction 15: operand 0"
    assert corrupt.wanted_of(program, TINY) == corrupt.Wanted(None, None)


@pytest.mark.thorough
def test_corrupted_programs_do_the_same() -> None:
    # A LOAD whose data end too early, and which would reach beyond its bank, is among them.
    wrong, seen = corrupt.differences(60, 16, TINY, brief=True, jitter=1)
    assert not wrong, (wrong, seen)
    assert seen["bytes"] > 18 and len(seen) >= 5, seen


@pytest.mark.thorough
def test_corrupted_programs_do_the_same_where_tokens_have_several_words() -> None:
    wrong, seen = compared(1, 2, WIDE[-1], count=50)
    assert not wrong, (wrong, seen)
    assert seen["bytes"] > 15 and len(seen) >= 5, seen


@pytest.mark.thorough
def test_corrupted_programs_do_the_same_where_two_tokens_share_a_multiplier() -> None:
    wrong, seen = compared(1, 3, QUAD, count=50)
    assert not wrong, (wrong, seen)
    assert seen["bytes"] > 15 and len(seen) >= 5, seen


@pytest.mark.slow
def test_corrupted_programs_do_the_same_where_formats_are_left_out() -> None:
    wrong, seen = compared(1, 2, UNIFORM, count=50)
    assert not wrong, (wrong, seen)
    assert seen["bytes"] > 15 and len(seen) >= 5, seen


@pytest.mark.slow
@pytest.mark.parametrize("config", [*WIDE, QUAD, UNIFORM], ids=named)
@pytest.mark.parametrize("seed", range(9, 12))
def test_many_corrupted_programs_of_several_words(seed: int, config: Config) -> None:
    wrong, seen = compared(3, seed, config, stall=32 * (seed % 4), jitter=(1 << seed % 5) - 1)
    assert not wrong, (wrong, seen)


@pytest.mark.slow
def test_many_corrupted_programs_do_the_same(tmp_path: Path) -> None:
    assert command.main(["--programs", "2400", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / command.RESULTS).read_text())["tiny"]
    assert found["programs"] == sum(found["kinds"].values()) == 2400 and not found["different"]
    assert found["kinds"]["bytes"] > 700 and len(found["kinds"]) >= 8, found["kinds"]


def test_command_goes_on_where_it_was_and_names_what_differs(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def differences(count: int, seed: int, config: Config, *, brief: bool, **stalls: int
                    ) -> tuple[list[str], Counter[str]]:
        asked.append((count, seed, stalls))
        return ["bits [7]: none, not bad opcode"] if seed == 5 else [], Counter(bytes=count)

    monkeypatch.setattr(corrupt, "differences", differences)
    monkeypatch.setattr(corrupt, "whole_program", lambda config: (b"",))
    monkeypatch.setattr(gen.elaborate, "generate", lambda unit, config: "module")
    commits = iter("abcd")
    monkeypatch.setattr(command, "provenance", lambda: {"commit": next(commits)})
    for programs, code in ((101, 0), (201, 1), (250, 1), (250, 1)):
        assert command.main(["--programs", str(programs), "--seed", "3", "-o", str(tmp_path)]) \
            == code
    assert asked == [(100, 3, {"stall": 96, "jitter": 7}), (100, 4, {"stall": 0, "jitter": 15}),
                     (100, 5, {"stall": 32, "jitter": 0})]
    text = capsys.readouterr()
    assert "300 corrupted programs on tiny: 1 different" in text.out
    assert "different: bits [7]: none, not bad opcode" in text.err
    found = json.loads((tmp_path / command.RESULTS).read_text())["tiny"]
    assert found["kinds"] == {"bytes": 300} and len(found["different"]) == 1
    assert found["run"] == {"commit": "c"}, "of the last that was run"


def test_bad_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command.main(["--programs", "0", "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert "--programs must be at least 1" in error and error.count("\n") == 1 and not out.exists()
