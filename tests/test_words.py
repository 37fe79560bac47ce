# SPDX-License-Identifier: Apache-2.0
"""Stream words: packing is Amaranth's packing, and refuses what does not fit."""

import random

import pytest
from amaranth.hdl import Const

from hw.lib.stream import signature
from vitforge.spec.instruction import INSTRUCTIONS
from vitforge.spec.words import Field, Word

WORD = Word((Field("a", 5, signed=True, count=3), Field("b", 1), Field("c", 9, count=2),
             Field("d", 4, signed=True)))


def _columns(n, seed=0):
    rng = random.Random(seed)
    return {"a": [[rng.randrange(-16, 16) for _ in range(3)] for _ in range(n)],
            "b": [rng.randrange(2) for _ in range(n)],
            "c": [[rng.randrange(512) for _ in range(2)] for _ in range(n)],
            "d": [rng.randrange(-8, 8) for _ in range(n)]}


def test_pack_is_inverted_by_unpack():
    columns = _columns(200)
    unpacked = WORD.unpack(WORD.pack(columns))
    assert {name: column.tolist() for name, column in unpacked.items()} == columns


def test_pack_is_amaranths_packing():
    layout = signature(WORD).members["payload"].shape
    assert layout.size == WORD.bits == 38
    columns = _columns(50, seed=1)
    for index, word in enumerate(WORD.pack(columns)):
        values = {name: column[index] for name, column in columns.items()}
        constant = layout.const(values)
        assert Const.cast(constant.as_value()).value == word


@pytest.mark.parametrize("word", INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_scalars_of_one_word_are_those_of_many(word):
    assert any(item.signed for item in word.fields) or word is not INSTRUCTIONS["PASS"]
    numbers = [random.Random(seed).getrandbits(word.bits) for seed in range(50)]
    columns = word.unpack([*numbers, 0, (1 << word.bits) - 1])
    for index, number in enumerate([*numbers, 0, (1 << word.bits) - 1]):
        assert word.scalars(number) == {name: column[index] for name, column in columns.items()}


@pytest.mark.parametrize(("change", "message"), [
    ({"a": [[0, 0, 16]]}, r"^a must lie in -16\.\.15, not 0\.\.16$"),
    ({"b": [2]}, r"^b must lie in 0\.\.1, not 2\.\.2$"),
    ({"c": [[0, -1]]}, r"^c must lie in 0\.\.511"),
    ({"a": [[0, 0]]}, r"^a must be integers of shape \(1, 3\), not int64 of shape \(1, 2\)$"),
    ({"d": [0.0]}, r"^d must be integers of shape \(1,\), not float64"),
    ({"e": [0]}, r"^fields must be \['a', 'b', 'c', 'd'\]"),
])
def test_pack_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        WORD.pack({**_columns(1), **change})
