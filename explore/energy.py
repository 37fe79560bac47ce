# SPDX-License-Identifier: Apache-2.0
"""Energy of one inference, an estimate: operations counted, times published energies of each.

Energies are of 45 nm at 0.9 V, from M. Horowitz, *Computing's energy problem (and what we can do
about it)*, ISSCC 2014, figure 1.1.9. They are of an ASIC: an FPGA takes a good deal more, and no
clock tree, wire or leakage is in them. What they are good for is the ratio of two designs.
"""

__all__ = ["Counts", "counts", "energy"]

from dataclasses import dataclass
from math import log2

from gen.compiler.compile import Compiled
from golden.machine.program import pass_channels
from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.instruction import OPERANDS, OPERATIONS
from vitforge.spec.pass_fields import (
    operand_words,
    pass_doubled,
    pass_keeps,
    pass_pack,
    pass_paired,
    weight_span,
)
from vitforge.spec.sizes import columns

#: Picojoules of an addition of 8 and of 32 bits: a bit costs as much in both within 4 %.
ADD = {8: 0.03, 32: 0.1}
#: Of a multiplication of 8 by 8, and of 32 by 32, bits; it grows with the product of the widths.
MULTIPLY = {8: 0.2, 32: 3.1}
#: Of 64 bits from a memory of so many bytes.
SRAM = {8 << 10: 10.0, 32 << 10: 20.0, 1 << 20: 100.0}
#: Of 64 bits from DRAM: the paper's range is 1,300 to 2,600.
DRAM = 1300.0


@dataclass(frozen=True)
class Counts:
    """Operations of one inference.

    Attributes
    ----------
    products
        Of the array, padding included: ``bits of the weight * bits of the mantissa`` of each,
        added up.
    macs
        How many there are.
    scratch, accumulators
        Bytes read and written in the scratchpad's banks, and in the accumulators.
    elements
        That pass the drain, and that are normalised or turned into attention codes.
    memory
        Bytes that pass the bus.
    """

    products: int
    macs: int
    scratch: int
    accumulators: int
    elements: int
    memory: int


def counts(compiled: Compiled, memory: int) -> Counts:
    """Count the operations of a program that moves so many bytes."""
    config = compiled.config
    products = macs = scratch = accumulators = elements = 0
    for item in compiled.instructions:
        if item.kind != "PASS":
            continue
        fields = item.fields
        words = operand_words(fields, config) * fields["tiles"]
        both, doubled = pass_paired(fields, config), pass_doubled(fields, config)
        bits = config.packed_weight_bits if both else \
            8 if fields["stationary"] else fields["weight_bits"]
        channels = pass_channels(fields, config)
        # All of the array multiplies, whatever is taken of its columns.
        made = words * config.rows * config.cols << both + doubled
        macs += made
        products += made * bits * (
            Element(config).operand_bits["quad"] if doubled else config.mantissa_bits)
        scratch += words * config.rows
        if pass_keeps(fields, config):
            scratch += words * config.rows // 2
        if fields["stationary"]:
            read = config.cols if fields["by_column"] else weight_span(fields, config) * config.rows
            scratch += fields["tiles"] * config.rows * read
        # Every tile but the first reads what is there; the drain reads it once more.
        accumulators += (2 * words << doubled) * columns(config) * (config.acc_bits // 8)
        drained = fields["tokens"] * channels
        elements += drained
        if fields["operation"] != OPERATIONS["raw"]:
            scratch += drained >> (pass_pack(fields, config) != 0)
        if fields["operation"] == OPERATIONS["residual"]:
            scratch += drained
        if fields["operand"] in (OPERANDS["norm"], OPERANDS["softmax"]):
            elements += words * config.rows
    return Counts(products, macs, scratch, accumulators, elements, memory)


def _byte(size: int) -> float:
    """Picojoules of a byte of a memory of `size` bytes: straight lines between the logarithms."""
    sizes = sorted(SRAM)
    low, high = (sizes[0], sizes[1]) if size < sizes[1] else (sizes[1], sizes[2])
    slope = (log2(SRAM[high]) - log2(SRAM[low])) / (log2(high) - log2(low))
    return 2 ** (log2(SRAM[low]) + slope * (log2(max(size, 1024)) - log2(low))) / 8


def energy(found: Counts, config: Config) -> dict[str, float]:
    """Return microjoules of an inference: in all, and of its parts.

    An element behind the array is taken as two multiplications of 16 by 16 bits and four additions
    of 32, of 4 bytes of parameters from a small memory.
    """
    mac = found.products * MULTIPLY[8] / 64 + found.macs * ADD[32] * config.sum_bits / 32
    banks = config.rows * (config.scratch_words + config.residual_words + config.stationary_words)
    held = config.max_tokens * columns(config) * (config.acc_bits // 8)
    element = 2 * MULTIPLY[8] * 256 / 64 + 4 * ADD[32] + 4 * _byte(8 << 10)
    parts = {"array": mac, "scratch": found.scratch * _byte(banks),
             "accumulators": found.accumulators * _byte(held),
             "elements": found.elements * element, "memory": found.memory * DRAM / 8}
    parts = {name: value / 1e6 for name, value in parts.items()}
    return {"energy_uj": sum(parts.values()), **{f"energy.{k}_uj": v for k, v in parts.items()}}
