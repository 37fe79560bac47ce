# SPDX-License-Identifier: Apache-2.0
"""What makes an instruction a fault, before anything of it is done."""

__all__ = ["checks"]

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Value

from hw.lib.layouts import span_bits, weight_span_bits
from hw.lib.products import few_times
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import (
    DESTINATIONS,
    LOOPS,
    MODES,
    OPCODES,
    OPERANDS,
    OPERATIONS,
    STATISTICS,
)
from vitforge.spec.sizes import doubled, paired, tables
from vitforge.spec.softmax_widths import ShiftWidths


def _strange_mode(config: Config, fields: Any, many: Value, raw: Value) -> Value:
    """Return whether a pass's mode is none, or takes other operands, weights or words.

    Parameters
    ----------
    many
        Whether the pass has more words than single weights make.
    """
    single = fields.mode == MODES["single"]
    if not doubled(config):
        return fields.mode[1] | Mux(fields.mode == MODES["pair"], fields.stationary, many)
    quad = fields.mode == MODES["quad"]
    late = (fields.late != 0) | (fields.pending != 0) | quad | raw
    if config.attention == "log2":
        late |= fields.operand == OPERANDS["softmax"]
    return (fields.mode == 3) | (single & many) | (fields.keep & late) \
        | (quad & ((fields.operand != OPERANDS["plain"]) | fields.blank_first
                   | (fields.operand_format != FORMATS["uniform"]))) \
        | ((fields.pack != 0) & (fields.operation == OPERATIONS["residual"]))


def _strange(config: Config, fields: Any, raw: Value) -> Value:
    """Return whether a PASS has values that mean nothing, alone or beside each other.

    Of a machine with several words a token, `words` and `mode` are among them; and codes that the
    configuration doesn't have.
    """
    strange = (fields.operand == 3) | (fields.statistics == 3) \
        | ((fields.destination == DESTINATIONS["memory"]) != raw) \
        | (raw & (fields.statistics != STATISTICS["none"]))
    for field, known, counts_if in ((fields.operand_format, config.operand_formats, Const(1)),
                                    (fields.format, config.result_formats, ~raw)):
        for name, code in FORMATS.items():
            if name not in known:
                strange |= (field == code) & counts_if
    if several := span_bits(config):
        strange |= fields.words[several:].any()
        if paired(config):
            strange |= _strange_mode(config, fields, fields.words[weight_span_bits(config):].any(),
                                     raw)
    return strange


def checks(config: Config, fields: Any, load: Any, *, input_bytes: Value, output_bytes: Value,
           ) -> list[tuple[Value, str, Value | int]]:
    """Look at a whole instruction.

    Parameters
    ----------
    fields, load
        Its fields, as those of a PASS and as those of a LOAD.
    input_bytes, output_bytes
        Of the buffers.

    Returns
    -------
    list of tuple
        What is wrong, the name of its fault, and the fault's address; the first goes first.
    """
    several = span_bits(config)
    is_pass = fields.opcode == OPCODES["PASS"]
    is_load = fields.opcode == OPCODES["LOAD"]
    raw = is_pass & (fields.operation == OPERATIONS["raw"])
    counts = [load[f"count_{loop}"] == 0 for loop in range(LOOPS)]

    def beyond(size: Value, *parts: Value) -> Value:
        # Of a difference of three synthesis makes one carry chain; a sum and a comparison
        # are two.
        rest = size
        for part in parts:
            rest = rest - part
        return rest[-1]

    coded = is_pass & ~raw
    searched = fields.format >= FORMATS["log2"]
    wrong_bits = (fields.bits < 2) | (fields.bits > Mux(searched, 4, 8))
    scales = (fields.operation == OPERATIONS["gelu"]) \
        | (fields.operation == OPERATIONS["residual"])
    softmax = (fields.operand == OPERANDS["softmax"]) \
        | (fields.statistics == STATISTICS["softmax"])
    wide_factor = scales & (fields.multiplier2 >> config.factor_bits).any()

    unknown = load.destination > DESTINATIONS["residual"]
    if tables(config):
        unknown = load.destination[1] & ~(load.destination[0] & load.inline)
    wrong = unknown | Cat(counts).any()
    if smallest := (config.lanes - 1).bit_length():
        wrong |= load.piece < smallest
    result = fields.tokens << (config.rows * 4).bit_length() - 1
    strange = _strange(config, fields, raw)
    if several:
        result = few_times(fields.tokens, fields.words[:several] + 1) \
            << (config.rows * 4).bit_length() - 1
    return [
        (~is_pass & ~is_load & (fields.opcode != OPCODES["END"]), "unknown opcode",
         fields.opcode),
        (is_pass & ((fields.tokens == 0) | (fields.tokens > config.max_tokens)
                    | (fields.tiles == 0)), "bad length", 0),
        (is_pass & ((fields.operand == OPERANDS["norm"]) | fields.has_norm)
         & (fields.tiles > config.max_channels // config.rows), "bad length", 0),
        (is_pass & ~fields.stationary
         & ((fields.weight_bits < 2) | (fields.weight_bits > config.weight_bits)),
         "bad field", 0),
        (is_pass & strange, "bad field", 0),
        (coded & (wrong_bits | wide_factor)
         | is_pass & softmax & (fields.softmax_multiplier >> ShiftWidths.multiplier).any(),
         "bad field", 0),
        (raw & (fields.offset[:6] != 0), "misaligned address", fields.offset),
        (raw & beyond(output_bytes, fields.offset, result),
         "address outside the window", fields.offset),
        (is_load & (load.bytes == 0), "bad length", 0),
        (is_load & Mux(load.inline, load.bytes[:(config.rows - 1).bit_length()] != 0,
                       load.offset[:6] | load.bytes[:6] != 0), "misaligned address",
         load.offset),
        (is_load & ~load.inline & beyond(input_bytes, load.offset, load.bytes),
         "address outside the window", load.offset),
        (is_load & (wrong | (load.piece > (config.rows - 1).bit_length())), "bad field", 0),
    ]
