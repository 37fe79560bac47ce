# SPDX-License-Identifier: Apache-2.0
"""The accelerator's program as bytes, and as instructions with the blocks behind them.

Both directions of `vitforge.spec.instruction`: `assemble` makes the bytes, `parse` reads them as
the accelerator does, front to back, and stops with a `Fault` where the accelerator would.
"""

__all__ = ["Fault", "Instruction", "assemble", "lines", "output_bytes", "pack_weights",
           "parse", "pass_channels", "read_logits", "unpack_weights"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from golden.machine.checks import check
from golden.machine.pairs import join_pairs, split_pairs
from vitforge.spec.config import Config
from vitforge.spec.instruction import (
    INSTRUCTIONS,
    LINE,
    NORM_PARAMETER,
    OPCODES,
    PARAMETER,
)
from vitforge.spec.pass_fields import pass_paired, pass_words, weight_span
from vitforge.spec.words import Word

Array = npt.NDArray[np.int64]
#: A column of values for every field of a word.
Columns = Mapping[str, Array]


class Fault(ValueError):
    """What ends a run before its END; the kinds are those of the register FAULT.

    Attributes
    ----------
    kind
        Name in `vitforge.spec.register_map.FAULTS`.
    instruction
        Index of the instruction, from 0.
    address
        Of the fault, 0 if it has none.
    checked
        Whether the hardware notices it: False for numbers that no program has and that it takes
        as they are.
    """

    def __init__(self, kind: str, instruction: int, address: int = 0, why: str = "", *,
                 checked: bool = True) -> None:
        self.kind, self.instruction, self.address = kind, instruction, address
        self.checked = checked
        super().__init__(f"instruction {instruction}: {kind}" + (f" ({why})" if why else ""))


@dataclass(frozen=True, eq=False)
class Instruction:
    """An instruction and the blocks behind it.

    Attributes
    ----------
    kind
        "LOAD", "PASS" or "END".
    fields
        All fields but the opcode and the reserved ones.
    norm
        `NORM_PARAMETER` of ``tiles * rows`` channels, if the fields say so.
    parameters
        `PARAMETER` of the pass's channels; None but for a PASS.
    weights
        int8 ``[tiles, rows, channels]``; None if they are stationary.
    data
        Words of an inline LOAD.
    thresholds
        15 integers, if the fields say so.
    """

    kind: str
    fields: Mapping[str, int]
    norm: Columns | None = None
    parameters: Columns | None = None
    weights: npt.NDArray[np.int8] | None = None
    data: bytes | None = None
    thresholds: tuple[int, ...] | None = None

    def size(self, config: Config) -> int:
        """Return the bytes that the instruction takes with its blocks."""
        return LINE + sum(map(lines, _sizes(self.kind, self.fields, config)))


def lines(size: int) -> int:
    """Round a number of bytes up to whole lines."""
    return -(-size // LINE) * LINE


def pass_channels(fields: Mapping[str, int], config: Config) -> int:
    """Return the channels that a pass makes."""
    return pass_words(fields, config) * config.rows


def block_bytes(fields: Mapping[str, int], config: Config) -> tuple[int, int, int, int]:
    """Return the bytes of a PASS's blocks, in their order, without padding."""
    inputs, channels = fields["tiles"] * config.rows, pass_channels(fields, config)
    elements = weight_span(fields, config) * config.rows
    return (inputs * NORM_PARAMETER.bits // 8 if fields["has_norm"] else 0,
            LINE if fields["has_thresholds"] else 0,
            channels * PARAMETER.bits // 8,
            0 if fields["stationary"] else inputs * -(-elements * fields["weight_bits"] // 8))


def pack_weights(weights: npt.NDArray[np.int8], bits: int) -> bytes:
    """Pack words ``[..., channels]`` of signed weights, element 0 in the low bits of each.

    Raises
    ------
    ValueError
        If a weight doesn't fit `bits`, 2 to 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"weight_bits must be 2 to 8, not {bits}")
    half = 1 << bits - 1
    if weights.size and not -half <= weights.min() <= weights.max() < half:
        raise ValueError(f"weights of {bits} bits must lie in {-half}..{half - 1}, not "
                         f"{weights.min()}..{weights.max()}")
    words = weights.astype(np.int8).reshape(-1, weights.shape[-1])
    if bits == 8:
        return words.tobytes()
    ones = np.unpackbits(words.view(np.uint8)[..., None], axis=-1, bitorder="little")[..., :bits]
    return np.packbits(ones.reshape(len(words), -1), axis=-1, bitorder="little").tobytes()


def unpack_weights(data: bytes, bits: int, channels: int) -> npt.NDArray[np.int8]:
    """Invert `pack_weights`: int8 ``[words, channels]``."""
    packed = np.frombuffer(data, np.uint8).reshape(-1, -(-channels * bits // 8))
    ones = np.unpackbits(packed, axis=-1, bitorder="little")[:, :channels * bits]
    values = ones.reshape(-1, channels, bits).astype(np.int64) @ (1 << np.arange(bits))
    return (values - (values >> bits - 1 << bits)).astype(np.int8)


def _pack(word: Word, columns: Columns) -> bytes:
    """Pack words of 64 bits: as `Word.pack`, a column at a time."""
    total: npt.NDArray[np.uint64] | None = None
    offset = 0
    for item in word.fields:
        column = np.asarray(columns[item.name], np.int64)
        low = -(1 << item.bits - 1) if item.signed else 0
        high = (1 << item.bits - item.signed) - 1
        if column.size and (column.min() < low or column.max() > high):
            raise ValueError(f"{item.name} must lie in {low}..{high}, not "
                             f"{column.min()}..{column.max()}")
        part = (column & (1 << item.bits) - 1).astype(np.uint64) << np.uint64(offset)
        total = part if total is None else total | part
        offset += item.bits
    assert total is not None
    return total.astype("<u8").tobytes()


def _unpack(word: Word, data: bytes) -> dict[str, Array]:
    words = np.frombuffer(data, "<u8")
    columns: dict[str, Array] = {}
    offset = 0
    for item in word.fields:
        column = (words >> np.uint64(offset)).astype(np.int64) & (1 << item.bits) - 1
        columns[item.name] = column - (column >> item.bits - 1 << item.bits) if item.signed \
            else column
        offset += item.bits
    return columns


@cache
def _names(kind: str) -> list[str]:
    return [item.name for item in INSTRUCTIONS[kind].fields
            if item.name != "opcode" and not item.name.startswith("reserved")]


def _head(instruction: Instruction) -> bytes:
    word = INSTRUCTIONS[instruction.kind]
    wanted = _names(instruction.kind)
    if set(instruction.fields) != set(wanted):
        raise ValueError(f"fields of {instruction.kind} must be {wanted}, "
                         f"not {list(instruction.fields)}")
    values = {item.name: 0 for item in word.fields} | dict(instruction.fields)
    values["opcode"] = OPCODES[instruction.kind]
    return word.pack({name: [value] for name, value in values.items()})[0].to_bytes(LINE, "little")


def _sizes(kind: str, fields: Mapping[str, int], config: Config) -> tuple[int, ...]:
    """Bytes of the blocks behind an instruction."""
    if kind == "PASS":
        return block_bytes(fields, config)
    return (fields["bytes"],) if kind == "LOAD" and fields["inline"] else ()


def assemble(instructions: Sequence[Instruction], config: Config) -> bytes:
    """Make the bytes of a program.

    Raises
    ------
    ValueError
        If a value doesn't fit its field, or a block has another size than its instruction says.
    """
    parts = []
    for index, item in enumerate(instructions):
        try:
            blocks = [_head(item)]
            if item.kind == "PASS":
                blocks += _blocks(item, config)
            elif item.data is not None:
                blocks.append(item.data)
        except ValueError as error:
            raise ValueError(f"instruction {index}, {item.kind}: {error}") from None
        parts += [block.ljust(lines(len(block)), b"\0") for block in blocks]
    return b"".join(parts)


def _blocks(item: Instruction, config: Config) -> list[bytes]:
    norm = _pack(NORM_PARAMETER, item.norm) if item.norm is not None else b""
    parameters = _pack(PARAMETER, item.parameters) if item.parameters is not None else b""
    weights = b""
    if item.weights is not None:
        elements = join_pairs(item.weights, config) if pass_paired(item.fields, config) \
            else item.weights
        weights = pack_weights(elements, item.fields["weight_bits"])
    levels = b"" if item.thresholds is None else np.array([*item.thresholds, 0], "<i4").tobytes()
    blocks = [norm, levels, parameters, weights]
    names = ("norm parameters", "thresholds", "parameters", "weights")
    for name, block, wanted in zip(names, blocks, block_bytes(item.fields, config),
                                   strict=True):
        if len(block) != wanted:
            raise ValueError(f"{name} must take {wanted} bytes, not {len(block)}")
    return blocks


def parse(program: bytes, config: Config, *, image: int = 1 << 32,
          output: int = 1 << 32) -> Iterator[Instruction]:
    """Read the instructions up to END, each when it is asked for.

    Parameters
    ----------
    image, output
        Bytes of the input and of the output buffer, for the checks.

    Raises
    ------
    Fault
        Where the accelerator would stop: an instruction that it refuses, or a program that is over
        before an END.
    """
    kinds = {code: kind for kind, code in OPCODES.items()}
    place = 0
    for index in range(len(program) // LINE + 1):
        if place + LINE > len(program):
            raise Fault("program without end", index)
        opcode = program[place]
        if opcode not in kinds:
            raise Fault("unknown opcode", index, opcode, f"opcode {opcode}")
        kind = kinds[opcode]
        word = int.from_bytes(program[place:place + LINE], "little")
        values = INSTRUCTIONS[kind].scalars(word)
        fields = {name: values[name] for name in _names(kind)}
        wrong = check(kind, fields, config, image=image, output=output)
        if wrong:
            raise Fault(wrong[0], index, wrong[1])
        place += LINE
        blocks = []
        for size in _sizes(kind, fields, config):
            if place + size > len(program):
                raise Fault("program without end", index)
            blocks.append(program[place:place + size])
            place += lines(size)
        yield _instruction(kind, fields, blocks, config)
        if kind == "END":
            return


def _instruction(kind: str, fields: dict[str, int], blocks: list[bytes],
                 config: Config) -> Instruction:
    if kind != "PASS":
        return Instruction(kind, fields, data=blocks[0] if blocks else None)
    norm, levels, parameters, weights = blocks
    return Instruction(
        kind, fields, _unpack(NORM_PARAMETER, norm) if norm else None,
        _unpack(PARAMETER, parameters),
        None if fields["stationary"] else _weights(weights, fields, config),
        thresholds=tuple(np.frombuffer(levels, "<i4").tolist())[:-1] if levels else None)


def _weights(block: bytes, fields: Mapping[str, int], config: Config) -> npt.NDArray[np.int8]:
    """Read the weights of a pass, int8 ``[tiles, rows, channels]``."""
    elements = unpack_weights(block, fields["weight_bits"],
                              weight_span(fields, config) * config.rows)
    if pass_paired(fields, config):
        elements = split_pairs(elements, pass_channels(fields, config), config)
    return elements.reshape(fields["tiles"], config.rows, -1)


def _result_line(config: Config) -> int:
    return lines(config.cols * 4)


def output_bytes(classes: int, config: Config) -> int:
    """Return the bytes of the output buffer.

    Of the head's logits as many as the array has columns begin a line, so less than 16 columns
    leave the rest of it unwritten; as does a last pass of fewer words.
    """
    return -(-classes // config.cols) * _result_line(config)


def read_logits(output: bytes, classes: int, config: Config) -> Array:
    """Take the logits, int64 ``[classes]``, out of the output buffer."""
    rows = np.frombuffer(output, "<i4").reshape(-1, _result_line(config) // 4)
    return rows[:, :config.cols].flatten()[:classes].astype(np.int64)
