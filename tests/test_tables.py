# SPDX-License-Identifier: Apache-2.0
"""Tables of tokens, residuals with an address of their own, statistics of a stream.

The generated Verilog is the golden machine, to the cycle.
"""

import dataclasses

import numpy as np
import pytest

from gen.compiler.check import hazards
from gen.compiler.image import inline_load
from gen.compiler.steps import pass_fields
from golden.machine.execute import execute
from golden.machine.program import Fault, Instruction, assemble, parse
from golden.machine.state import State
from tests import random_passes
from tests.sample import later, leading
from tests.test_not_square import compare, named, of_passes
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import LATE_NEVER, OPERANDS, OPERATIONS, TABLE

TINY = load("tiny")
SHAPES = [dataclasses.replace(TINY, name="tiny-tables", table_tokens=64, stream_tokens=40),
          dataclasses.replace(TINY, name="tiny8-tables", rows=8, cols=8, lanes=4, axi_bits=128,
                              table_tokens=100, stream_tokens=300),
          dataclasses.replace(TINY, name="tiny4x8-tables", cols=8, table_tokens=48)]
#: Programs of random passes.
PASSES = 6


@pytest.mark.rtl
@pytest.mark.parametrize("config", [*map(later, SHAPES[:2]), SHAPES[2]], ids=named)
@pytest.mark.thorough
def test_random_passes_are_exact(config: Config) -> None:
    compare(config, [of_passes(config, seed, 40) for seed in range(PASSES)])


@pytest.mark.parametrize("config", leading(1, SHAPES), ids=named)
def test_random_passes_gather_and_add_what_lies_elsewhere(config: Config) -> None:
    found = [item.fields for seed in range(PASSES)
             for item in parse(random_passes.program(config, seed, 40)[0], config)
             if item.kind == "PASS"]
    assert {item["gathers"] for item in found} == {0, 1}
    assert any(item["operation"] == OPERATIONS["residual"] and item["offset"] != item["d_base"]
               for item in found)


def indices(values: list[int], config: Config, base: int = 0) -> Instruction:
    """Return a LOAD of a table, filled up to whole words."""
    several = config.rows // 2
    values = values + [0] * (-len(values) % several)
    return Instruction("LOAD", inline_load(base, len(values) // several, config)
                       | {"destination": TABLE}, data=np.array(values, "<u2").tobytes())


def copy(config: Config, **fields: int) -> Instruction:
    """Return a pass that copies words of the scratch bank to the residual bank."""
    one, zero = np.ones(config.rows, np.int64), np.zeros(config.rows, np.int64)
    return Instruction("PASS", pass_fields(
        weight_bits=2, tiles=1, operand_bits=8, destination=1, bits=8, **fields), None,
        {"bias": zero, "multiplier": one << 14, "shift": 14 * one, "encode_shift": zero,
         "residual_shift": zero, "statistics_shift": zero},
        np.eye(config.rows, dtype=np.int8)[None])


def test_a_pass_reads_the_tokens_of_its_table() -> None:
    config = SHAPES[0]
    words = np.arange(48 * 4).reshape(48, 4) % 256
    data = Instruction("LOAD", inline_load(0, 48, config) | {"destination": 0},
                       data=words.astype(np.uint8).tobytes())
    state = State(config)
    order = [5, 0, 39, 7, 7, 1]
    execute(assemble([data, indices([9, 9, *order], config), copy(
        config, tokens=6, gathers=1, a_table=2, a_base=3, d_base=10), Instruction("END", {})],
        config), b"", config, 0, state=state)
    assert state.banks["residual"][10:16].tolist() == words[[3 + token for token in order]].tolist()


@pytest.mark.parametrize(("program", "message"), [
    ([indices([1] * 64, SHAPES[0], base=1)], "scratchpad overflow .indices beyond the table"),
    ([copy(SHAPES[0], tokens=6, gathers=1, a_table=60)], "bad field .indices of tokens beyond"),
    ([copy(SHAPES[0], tokens=6, statistics=1, statistics_last=1, channels=4, f_base=300)],
     "bad field .norm statistics of tokens beyond"),
])
def test_what_is_beyond_a_table_is_a_fault(program: list[Instruction], message: str) -> None:
    config = SHAPES[0]
    with pytest.raises(Fault, match=message):
        execute(assemble([*program, Instruction("END", {})], config), b"", config, 0)


def test_without_tables_the_fields_do_not_count() -> None:
    plain, strange = (assemble([copy(TINY, tokens=6, **more), Instruction("END", {})], TINY)
                      for more in ({}, {"gathers": 1, "a_table": 9, "f_base": 7}))
    found = [State(TINY), State(TINY)]
    for program, state in zip((plain, strange), found, strict=True):
        state.banks["scratch"][:6] = 7
        execute(program, b"", TINY, 0, state=state)
    assert bool((found[0].banks["residual"] == found[1].banks["residual"]).all())
    with pytest.raises(Fault, match="bad field"):   # nor is there a table to load
        execute(assemble([indices([1], TINY), Instruction("END", {})], TINY), b"", TINY, 0)


def test_a_residual_that_has_not_landed_is_refused() -> None:
    config = SHAPES[0]
    made = [copy(config, tokens=8, d_base=0),
            copy(config, tokens=8, d_base=20, offset=0, operation=OPERATIONS["residual"])]
    with pytest.raises(ValueError, match="pass 1 adds a residual that pass 0 makes"):
        hazards(made, config)
    others = [copy(config, tokens=8, d_base=40) for _ in range(2)]
    hazards([made[0], *others, made[1]], config)


def test_a_residual_under_the_results_is_refused() -> None:
    """Unless it is where the results go: a word is read long before it is written."""
    config = SHAPES[0]
    for offset, good in ((0, True), (1, False), (7, False), (8, True)):
        made = [copy(config, tokens=8, d_base=0, offset=offset,
                     operation=OPERATIONS["residual"])]
        if good:
            assert hazards(made, config)
            continue
        with pytest.raises(ValueError, match="pass 0 writes over what it adds"):
            hazards(made, config)


def test_operands_of_the_residual_bank_wait_for_those_who_add() -> None:
    """The port is theirs, whatever words they read."""
    config = SHAPES[0]
    adding = copy(config, tokens=8, d_base=0, offset=0, operation=OPERATIONS["residual"])
    other, reading = copy(config, tokens=8, d_base=20), copy(config, tokens=8, from_residual=1,
                                                             a_base=40, d_base=60)
    assert hazards([adding, reading], config)[1] == (0, 0)
    assert hazards([adding, other, reading], config)[2] == (0, 1)
    assert hazards([adding, other, other, reading], config)[3] == (LATE_NEVER, 0)


def test_a_gathered_word_is_waited_for() -> None:
    """The table says that the word is one of those that the pass before makes."""
    config = SHAPES[0]
    first = copy(config, tokens=8, d_base=0)
    gather = copy(config, tokens=8, from_residual=1, a_base=0, a_table=0, gathers=1, d_base=30)
    assert hazards([indices([3] * 8, config), first, gather], config)[1] == (0, 0)
    assert hazards([indices([30] * 8, config), first, gather], config)[1][0] > 0


def test_a_load_between_passes_waits_for_all_of_them() -> None:
    """So passes behind it neither wait for those before it nor are refused."""
    config = SHAPES[0]
    brought = Instruction("LOAD", inline_load(50, 2, config) | {"destination": 1},
                          data=bytes(2 * config.rows))
    made = copy(config, tokens=8, d_base=0)
    adding = copy(config, tokens=8, d_base=20, offset=0, operation=OPERATIONS["residual"])
    reading = copy(config, tokens=8, from_residual=1, a_base=20, d_base=60)
    assert hazards([made, brought, adding, brought, reading], config) == [(LATE_NEVER, 0)] * 3
    assert hazards([made, brought, adding, reading], config)[2] == (0, 0)


def test_norm_parameters_behind_a_load_may_replace_those_before_it() -> None:
    config = SHAPES[0]
    normed = copy(config, tokens=8, operand=OPERANDS["norm"], from_residual=1, has_norm=1,
                  d_base=40)
    brought = Instruction("LOAD", inline_load(50, 2, config) | {"destination": 1},
                          data=bytes(2 * config.rows))
    assert len(hazards([normed, brought, normed], config)) == 2
    with pytest.raises(ValueError, match="pass 1 loads norm parameters over those that pass 0"):
        hazards([normed, normed], config)
