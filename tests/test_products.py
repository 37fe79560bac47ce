# SPDX-License-Identifier: Apache-2.0
"""Products and shifts of LUTs are exact, with as many registers as they say."""

import itertools
import random

import pytest
from amaranth.hdl import Module, Shape, Signal, signed, unsigned
from amaranth.sim import Simulator

from gen.elaborate import generate
from gen.synthesis.expected import memories, multipliers
from hw.lib.products import few_times, lut_product, product, shift_right
from tests.sample import thinned
from vitforge.spec.config import load
from vitforge.spec.products import DrainProducts, levels


def _ends(shape):
    low = -(1 << shape.width - 1) if shape.signed else 0
    return low, low + (1 << shape.width) - 1


def _values(shape, rng, count):
    low, high = _ends(shape)
    if shape.width <= 4:
        return range(low, high + 1)
    return [low, high, 0, 1, low + 1, high - 1, *(rng.randint(low, high) for _ in range(count))]


def _play(m, inputs, output, rows, late):
    """Every row of inputs, one a cycle, gives its result `late` cycles later."""
    async def bench(ctx):
        for number in range(len(rows) + late):
            for port, value in zip(inputs, rows[min(number, len(rows) - 1)][0], strict=True):
                ctx.set(port, value)
            if number >= late:
                given, wanted = rows[number - late]
                assert ctx.get(output) == wanted, given
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("shapes", "registers"), thinned([
    (signed(4), signed(4)), (unsigned(4), signed(3)), (signed(3), unsigned(4)),
    (unsigned(1), unsigned(4)), (signed(1), signed(4)), (unsigned(3), unsigned(3)),
    (signed(8), unsigned(17)), (signed(16), unsigned(16)), (signed(12), signed(12)),
    (unsigned(11), unsigned(17)), (signed(9), unsigned(5)), (signed(17), signed(16))],
    [1, 2, 3, 4, 6], of=3))
def test_products_of_luts_are_exact(shapes, registers):
    left, right = shapes
    m, rng = Module(), random.Random(f"{left} {right}")
    a, b = Signal(left), Signal(right)
    found = lut_product(m, a, b, registers=registers, advance=1, name="p")
    assert found.shape() == Shape(left.width + right.width, signed=left.signed or right.signed)
    pairs = itertools.product(_values(left, rng, 12), _values(right, rng, 12))
    _play(m, (a, b), found, [((x, y), x * y) for x, y in pairs], registers)


@pytest.mark.parametrize("shape", [signed(6), unsigned(7), signed(31)], ids=repr)
def test_shifts_are_floors(shape):
    m, rng = Module(), random.Random(3)
    value, amount = Signal(shape), Signal(4)
    found = shift_right(m, value, amount, advance=1, name="s")
    rows = [((x, by), x >> by) for x in _values(shape, rng, 12) for by in range(16)]
    _play(m, (value, amount), found, rows, 2)


def test_a_bound_cuts_a_product():
    m, x = Module(), Signal(signed(5))
    found = product(m, x, x, registers=2, advance=1, name="p", shape=unsigned(9))
    assert found.shape() == unsigned(9)
    _play(m, (x,), found, [((value,), value * value) for value in range(-16, 16)], 2)


def test_registers_are_those_of_the_additions():
    assert [levels(width) for width in (1, 2, 3, 4, 5, 8, 9, 16, 17)] == [1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert DrainProducts.of(load("edge8")) == DrainProducts()


def test_a_count_of_few_bits_takes_adders():
    m, value, count = Module(), Signal(5), Signal(3)
    found = Signal(8)
    m.d.sync += found.eq(few_times(value, count))
    _play(m, (value, count), found, [((x, n), x * n) for x in range(32) for n in range(8)], 1)


@pytest.mark.parametrize(("name", "products", "blocks"), [("edge8", 131, 53), *(
    pytest.param(f"ecp5-85k-{name}", 156, blocks, marks=pytest.mark.slow)
    for name, blocks in (("w8", 156), ("w4", 184), ("w4a4", 202)))])
@pytest.mark.thorough
def test_an_lfe5u_85f_has_multipliers_and_memories_enough(name, products, blocks):
    """Products by constants are none; memories are as many as `gen.synth` has found."""
    text = generate("accelerator", load(name))
    assert multipliers(text) == products <= 156
    assert memories(text) == blocks <= 208
