# SPDX-License-Identifier: Apache-2.0
"""Instructions of the accelerator: 64 bytes each, little-endian, with what follows them in memory.

A program is one sequence of bytes that the accelerator reads from front to back, once: every
instruction is followed by the parameters and weights it uses, each block padded to `LINE` bytes.
So weights are fetched behind the computation with no address to compute, in the longest bursts.

`PASS` makes C output channels for all its tokens, as many as the array has columns or less: C is
`rows`, the channels of a word of the scratchpad, times the words of a token::

    for tile in tiles:                      # K in steps of `rows`
        for token in tokens:
            acc[token] += operand(bank[a_base + tile * a_stride + token]) @ weights[tile]
    for token in tokens:                    # drained while the next pass runs
        for word in words:
            bank[d_base + word * d_pitch + token] = requantize(acc[token, word])

A pass of `mode` pair has two weights of every multiplier, so at most twice as many channels as the
array has columns. Its weights come from the stream, two to an element: channel c of the first
`cols` and channel ``cols + c``, ``(w1 << packed_weight_bits) + w0``, none the least of its width;
the operands have 9 bits after their shift. One of `mode` quad has the operands of two tokens as
well: a word of the scratchpad has those of tokens 2p and 2p + 1, 4 bits of a byte each (`PACKS`),
and a tile takes half as many words. Its operands are uniform and plain, each less the low 4 bits of
the zero point.

With quad, results of at most 4 bits may be packed, and stationary weights of pair and quad are: a
byte has two codes of 4 bits, each less 8, where code 0 counts as 1. ::

    tokens:  bank[d_base + word * d_pitch + token // 2]                     half: token % 2
    keys:    bank[d_base + word * d_pitch + token // (2 cols) * cols + token % cols]
                                                                 half: token // cols % 2
    values:  bank[d_base + word % (cols / rows) * d_pitch + token]     half: word >= cols / rows

So the halves of a key's column are channels c and ``cols + c``, and those of a row of values too.
A pass with `keep` writes the codes of its operands into scratch, packed by tokens, while it reads
them: the low 4 bits, 0 where there is no operand, of tile 0 from the word `offset` on, and
``ceil(T / 2)`` words a tile; an odd last token takes both halves. It begins when all passes before
it have landed (`late` and `pending` are 0). So a norm is computed once for all passes that read it.

Where an array has as many columns as rows, and no pairs, a token has one word, and `words`,
`d_pitch` and `w_pitch` don't count; nor does `mode` where there are no pairs.

Where there are tables (`table_tokens` of the configuration), a pass that `gathers` reads the
operands of token n at ``a_base + tile * a_stride + table[a_table + n]``, and normalises them with
the factors of token ``f_base + table[a_table + n]``; else n takes the place of the index. The
statistics of its own token n are kept as those of token ``f_base + n``. A residual is read at
``offset + word * d_pitch + token``. Without tables it is read where its sum goes, and the three
fields don't count.

Blocks behind a PASS, in this order: `NORM_PARAMETER` of ``tiles * rows`` channels if `has_norm`;
16 times `THRESHOLD` if `has_thresholds`, for this and all later passes; `PARAMETER` of C channels;
``tiles * rows`` words of weights if they come from the stream, of C elements of `weight_bits` bits,
or of the columns' if these are less, padded to whole bytes.

Stationary weights are read word by word: row r of a tile is the words ``w_base + tile * w_stride +
word * w_pitch + r``; or column c is the word ``w_base + tile * w_stride + c`` if they come by
column, and then all columns of the array are read.

`LOAD` reads the input buffer and scatters its pieces over a bank, or brings `bytes` of words of its
own. `END` finishes the program.
"""

__all__ = ["DESTINATIONS", "TABLE", "END", "INSTRUCTIONS", "LATE_NEVER", "LINE", "LOAD", "LOOPS",
           "MODES", "NORM_PARAMETER", "OPCODES", "OPERANDS", "OPERATIONS", "PACKS", "PARAMETER",
           "PASS", "STATISTICS", "THRESHOLD"]

from vitforge.spec import requant_fields
from vitforge.spec.formats import FORMATS, numbered
from vitforge.spec.words import Field, Word

#: Bytes of an instruction, and the alignment of every block and buffer.
LINE = 64
#: Nested loops of a LOAD.
LOOPS = 6
#: A `late` beyond every tile.
LATE_NEVER = (1 << 12) - 1

OPCODES = {"LOAD": 1, "PASS": 2, "END": 3}
#: How a word of a bank becomes operands.
OPERANDS = {"plain": 0, "norm": 1, "softmax": 2}
#: What the drain does with a requantized value; `raw` writes ``acc + bias`` to memory.
OPERATIONS = {**requant_fields.OPERATIONS, "raw": 3}
#: What the drain gathers a row at a time.
STATISTICS = {"none": 0, "norm": 1, "softmax": 2}
#: What a multiplier takes at once; the array calls these the same.
MODES = {"single": 0, "pair": 1, "quad": 2}
#: Which two codes of at most 4 bits share a byte.
PACKS = {"none": 0, "tokens": 1, "keys": 2, "values": 3}
#: Banks of the scratchpad; `memory` is the output buffer.
DESTINATIONS = {"scratch": 0, "residual": 1, "stationary": 2, "memory": 3}

#: Destination of a LOAD of indices.
TABLE = 3


def _instruction(*groups: tuple[Field, ...]) -> Word:
    """Fields in groups of 32 bits, with the unused bits as fields `reserved_n`."""
    fields: list[Field] = []
    for number in range(LINE // 4):
        group = groups[number] if number < len(groups) else ()
        free = 32 - sum(item.bits for item in group)
        if free < 0:
            raise ValueError(f"group {number} has more than 32 bits")
        fields += group
        if free:
            fields.append(Field(f"reserved_{number}", free, text="0"))
    return Word(tuple(fields))


_OPCODE = Field("opcode", 8, text="kind of the instruction")

PASS = _instruction(
    (_OPCODE,
     Field("stationary", 1, text="weights come from the stationary bank, not from the stream"),
     Field("by_column", 1, text="a word of stationary weights is a column of its tile"),
     Field("weight_bits", 4, text="width of the stream's weights, 2 to 8"),
     Field("operand", 2, text=numbered(OPERANDS)),
     Field("blank_first", 1, text="the first token's operands are zero"),
     Field("has_norm", 1, text="norm parameters follow"),
     Field("has_thresholds", 1, text="thresholds follow"),
     Field("norm_slot", 1, text="half of the norm parameter memory"),
     Field("probability_slot", 1, text="half of the softmax statistics, read or written"),
     Field("statistics", 2, text=numbered(STATISTICS)),
     Field("statistics_first", 1, text="rows begin with this pass"),
     Field("statistics_last", 1, text="rows end with this pass"),
     Field("destination", 2, text=numbered(DESTINATIONS)),
     Field("operation", 2, text=numbered(OPERATIONS).replace("gelu", "GeLU")),
     Field("mode", 2, text=f"products of a multiplier: {numbered(MODES)}")),
    (Field("tokens", 12, text="T"), Field("tiles", 12, text="K / rows"),
     Field("valid", 8, text="keys: of the last tile (softmax operand), or of this pass's columns "
                            "(softmax statistics)")),
    (Field("late", 12, text="first tile whose operands the passes just before make"),
     Field("pending", 2, text="of these, those that need not have landed by then"),
     Field("channels", 12, text="C of the norm statistics"),
     Field("from_residual", 1, text="operands come from the residual bank, not from scratch")),
    (Field("a_base", 24, text="word of tile 0, token 0"),),
    (Field("a_stride", 24, text="words from tile to tile"),),
    (Field("w_base", 24, text="first word of tile 0 in the stationary bank"),),
    (Field("w_stride", 24, text="words from tile to tile"),),
    (Field("d_base", 24, text="word of token 0 in the destination"),),
    (Field("operand_format", 2, text=numbered(FORMATS)),
     Field("operand_zero_point", 8, text="of uniform codes, and of norm's result"),
     Field("operand_m", 4, text="two-scale: shift between the regions"),
     Field("operand_signed", 1, text="two-scale: two's complement"),
     Field("operand_bits", 4, text="two-scale, log2: width of a code; norm: of its "
           "result, which saturates there"),
     Field("norm_zero_point", 8, text="of the codes that norm reads")),
    (Field("softmax_multiplier", 18, text="log2(e) * scale of the scores"),
     Field("softmax_shift", 12, signed=True, text="log2 of the probabilities' scale, but for a "
           "constant, in 1/128: uniform, two-scale and table codes")),
    (Field("format", 2, text=numbered(FORMATS).replace("uniform", "uniform or PTF")),
     Field("zero_point", 8, text="of uniform codes"),
     Field("bits", 4, text="width of a code"),
     Field("m", 4, text="two-scale: shift between the regions"),
     Field("signed", 1, text="two-scale: two's complement"),
     Field("residual_zero_point", 8, text="of the residual's codes")),
    (Field("multiplier2", 18, text="factor of GeLU's result or of the residual"),
     Field("lowest", 8, text="added to the code")),
    (Field("offset", 32, text="raw: bytes from the start of the output buffer; residual, where "
           "there are tables: word of token 0 of what is added, in the residual bank; kept "
           "operands: word of tile 0, token 0 in scratch"),),
    (Field("d_pitch", 24, text="words from word to word of a token in the destination"),
     Field("words", 4, text="words that a token gets, less one")),
    (Field("w_pitch", 24, text="words from word to word of a row of stationary weights"),
     Field("pack", 2, text=f"codes of 4 bits that share a byte of the results: {numbered(PACKS)}"),
     Field("keep", 1, text="codes of the operands are kept")),
    (Field("a_table", 16, text="place of token 0's index, if operands are gathered"),
     Field("f_base", 14, text="number in the stream of the pass's first token: of the "
           "statistics that it gathers, and of those that it reads"),
     Field("gathers", 1, text="operands are those of the tokens that the table has")),
)

LOAD = _instruction(
    (_OPCODE,
     Field("inline", 1, text="the data follow in the program, words of the bank from `base` on; "
                             "neither offset nor loops count"),
     Field("destination", 2, text="0 scratch, 1 residual, 3 table (inline): two bytes an index"),
     Field("piece", 3, text="log2 of the bytes of a piece, lanes to rows")),
    (Field("offset", 32, text="bytes"),),
    (Field("bytes", 32, text=f"a multiple of {LINE}; what the loops don't take is dropped"),),
    (Field("base", 28, text="place of the first piece, in pieces"),),
    *((Field(f"count_{loop}", 12, text="times; loop 0 is the innermost"),
       Field(f"delta_{loop}", 20, signed=True, text="pieces from one place to the next when this "
             "loop steps and all inner ones start again")) for loop in range(LOOPS)),
)

END = _instruction((_OPCODE,))

INSTRUCTIONS = {"LOAD": LOAD, "PASS": PASS, "END": END}

#: Requantization of one output channel.
PARAMETER = Word((
    Field("bias", 32, True, text="added to the accumulator"),
    Field("multiplier", 16, text="then multiplied"),
    Field("shift", 6, text="then shifted right, rounding half up"),
    Field("encode_shift", 4, text="right shift before the code"),
    Field("residual_shift", 3, text="left shift of the residual's mantissa"),
    Field("statistics_shift", 3, text="left shift of the result's mantissa in norm statistics"),
))

#: One of the 15 static thresholds of the formats two-scale, log2 and table (`hw.requant`), and a
#: last one that isn't used.
THRESHOLD = Word((Field("value", 32, True, text="compared with a requantized value"),))

#: LayerNorm of one input channel.
NORM_PARAMETER = Word((
    Field("gamma", 18, True, text="in 1/256 output steps"),
    Field("offset", 20, True, text="beta + zero point + 1/2, in 1/256 output steps"),
    Field("shift", 3, text="left shift of the input's mantissa"),
    Field("reserved", 23, text="0"),
))
