# SPDX-License-Identifier: Apache-2.0
"""Promised latencies: those of every core that can be built, and no core with others."""

import dataclasses
import random

import pytest

from hw.core import Core
from hw.operand.path import OperandPath
from vitforge.spec.config import Config, ConfigError, load
from vitforge.spec.timing import Timing


@pytest.mark.thorough
def test_cores_keep_what_is_promised():
    chosen, different, built = random.Random(1), set(), 0
    while built < 60:
        rows, most = chosen.choice((4, 8, 16, 32, 64)), chosen.choice((1, 2, 4))
        try:
            config = Config(
                rows=rows, cols=most * rows, lanes=chosen.choice((1, 2, 4, 8, 16, 32)),
                pe_style=chosen.choice(("wide", "shift")), norm_bits=chosen.choice((8, 10, 12, 16)),
                max_channels=rows * chosen.randint(1, 1024 // rows),
                max_keys=chosen.choice((64, 197, 1024)),
                attention=chosen.choice(("log2", "uniform", "two-scale", "log-sqrt2", "table")),
                rsqrt_bits=chosen.choice((8, 16, 18)), exp_table_bits=chosen.choice((0, 3, 6)),
                drain_products=chosen.choice(("multipliers", "luts")))
            Core(config)     # compares them, or doesn't exist
        except ConfigError:
            continue
        built += 1
        different.add(Timing.of(config))
    assert len(different) > 8


def test_presets_by_hand():
    # Written 36 cycles behind the issue; 18 more for LayerNorm's factors; readable one later.
    assert Timing.of(load("edge8")) == Timing(depth=14, sums=19, early=38, landed=55, revisit=5)
    # Twice the columns: 8 more to cross; the second token of a pass of one word is 2 cycles sooner
    # behind one of two words.
    assert Timing.of(dataclasses.replace(load("edge8"), cols=16)) == Timing(
        depth=14, sums=27, early=46, landed=55, revisit=9)
    # Three registers more each for squares, variance and root.
    assert Timing.of(dataclasses.replace(load("edge8"), drain_products="luts")) == Timing(
        depth=14, sums=19, early=38, landed=64, revisit=5)


def test_a_core_with_another_latency_is_refused(monkeypatch):
    config = dataclasses.replace(load("tiny"), name="late")
    monkeypatch.setattr(OperandPath, "latency", OperandPath.latency + 1)
    with pytest.raises(AssertionError, match=r"depth=15.*depth=14.* is promised"):
        Core(config)
