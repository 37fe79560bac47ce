# SPDX-License-Identifier: Apache-2.0
"""The accelerator, bit by bit: interprets the bytes of a program.

A pass is done at once: its words are gathered into one matrix of operands, which is multiplied by
its weights in float64. That is exact: an operand has at most 17 bits, a weight 8, and a pass takes
at most ``4095 * 64 < 2**18`` products a sum, so every partial sum is below
``2**16 * 2**7 * 2**18 = 2**41``.
"""

__all__ = ["PassRecord", "Run", "execute"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from golden.formats.attention import log2_format
from golden.machine.decode import decode_any
from golden.machine.encode import encode_any
from golden.machine.halves import operand_pairs, stationary_weights, store
from golden.machine.pairs import check_pair
from golden.machine.places import (
    kept_places,
    operand_addresses,
    residual_addresses,
    result_addresses,
    result_halves,
    weight_addresses,
)
from golden.machine.program import Fault, Instruction, parse, pass_channels
from golden.machine.state import State
from golden.units.encoding import Encoding
from golden.units.layernorm import normalize
from golden.units.requant import Requantization, operate, scale_values
from golden.units.softmax import ShiftScale, log2_codes
from golden.units.softmax_levels import level_words
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE
from vitforge.spec.instruction import DESTINATIONS, LINE, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.pass_fields import (
    operand_words,
    pass_doubled,
    pass_keeps,
    pass_pack,
    pass_paired,
)

_BANKS = {number: name for name, number in DESTINATIONS.items()}
_OPERATIONS = {number: name for name, number in OPERATIONS.items()}


@dataclass(frozen=True, eq=False)
class PassRecord:
    """One pass: what entered the array and what left the drain.

    Attributes
    ----------
    instruction, number
        Index among the instructions, and among the passes.
    fields
        Of the instruction.
    operands, weights, acc
        int64 ``[T, K]``, ``[K, C]`` and ``[T, C]``, C the channels of the pass.
    result
        Codes ``[T, C]``; accumulators with bias if the pass is raw.
    """

    instruction: int
    number: int
    fields: Mapping[str, int]
    operands: Tensor
    weights: Tensor
    acc: Tensor
    result: Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """A run that came to its END: the output buffer, the memories, and the count of passes."""

    output: bytes
    state: State
    passes: int


def execute(program: bytes, image: bytes, config: Config, output: int,
            record: Callable[[PassRecord], object] | None = None,
            state: State | None = None) -> Run:
    """Run a program.

    Parameters
    ----------
    program, image
        Bytes of the program's buffer and of the input buffer.
    output
        Bytes of the output buffer; what isn't written is 0.
    record
        Called with every pass.
    state
        Memories as an earlier run left them; None is all zero.

    Raises
    ------
    Fault
        Where the accelerator would stop with one. `Fault.instruction` is the instruction at fault;
        the hardware, which reads ahead, may name a later one for a scratchpad overflow. A "bad
        field" that is not `Fault.checked` is a value of the parameters or the statistics that has
        no meaning (docs/accelerator.md lists them): the hardware goes on and computes something.
    """
    for name, size in (("program", len(program)), ("input", len(image)), ("output", output)):
        if size % LINE or (name == "program" and not size):
            raise Fault("bad length", 0, size, f"{name} buffer of {size} bytes")
    machine = _Machine(config, state or State(config), output)
    number = 0
    for index, item in enumerate(parse(program, config, image=len(image), output=output)):
        if item.kind == "LOAD":
            offset = item.fields["offset"]
            data = item.data or image[offset:offset + item.fields["bytes"]]
            machine.state.load(item.fields, data, index)
        elif item.kind == "PASS":
            found = machine.run_pass(item, index, number)
            if record:
                record(found)
            number += 1
    return Run(bytes(machine.output), machine.state, number)


def _certain(x: Tensor, channels: int, total: Tensor, square: Tensor, config: Config) -> None:
    """Refuse elements that are not of a row of these statistics: LayerNorm's widths rely on it."""
    variance, half = channels * square - total * total, 1 << config.norm_bits - 1
    if not 1 <= channels <= config.max_channels or int(variance.min()) < 0 \
            or bool((x < -half).any()) or bool((x >= half).any()):
        raise ValueError("norm statistics must be those of a row")
    if bool(((channels * x - total).square() > (channels - 1) * variance).any()):
        raise ValueError("an element is farther out than a row of these statistics can have it")


class _Machine:
    def __init__(self, config: Config, state: State, output: int) -> None:
        self.config, self.state = config, state
        self.output = bytearray(output)

    def run_pass(self, item: Instruction, index: int, number: int) -> PassRecord:
        fields, state = item.fields, self.state
        if item.thresholds is not None:
            state.thresholds = item.thresholds
        if item.norm is not None:
            state.store_norm(fields["norm_slot"], item.norm)
        try:
            operands = self._operands(fields, index)
            weights = self._weights(item, index)
            if pass_paired(fields, self.config):
                check_pair(operands, weights, self.config)
            acc = (operands.double() @ weights.double()).to(torch.int64)
            acc = self._wrap(acc, self.config.acc_bits)
            result = self._drain(item, acc, index)
        except Fault:
            raise
        except ValueError as error:
            raise Fault("bad field", index, why=str(error), checked=False) from None
        return PassRecord(index, number, fields, operands, weights, acc, result)

    @staticmethod
    def _wrap(values: Tensor, bits: int) -> Tensor:
        """Keep the low bits, as an adder does; the compiler proves that nothing is lost."""
        half = 1 << bits - 1
        return (values + half & (1 << bits) - 1) - half

    def _operands(self, fields: Mapping[str, int], index: int) -> Tensor:
        """Return operands int64 ``[T, tiles * rows]``."""
        tokens, tiles, rows = operand_words(fields, self.config), fields["tiles"], self.config.rows
        sources = self.state.tokens(fields)
        addresses = operand_addresses(fields, sources.numpy()[:tokens])
        bank = "residual" if fields["from_residual"] else "scratch"
        codes = self.state.read(bank, addresses, index).reshape(tokens, -1)
        if pass_doubled(fields, self.config):
            return operand_pairs(codes, fields, self.config)
        # Beyond the last key there is nothing, and no code either.
        lives = torch.ones(tokens, tiles * rows, dtype=torch.bool)
        if fields["operand"] == OPERANDS["norm"]:
            codes = self._normalized(fields, codes, sources)
            operands = codes - fields["operand_zero_point"]
        elif fields["operand"] == OPERANDS["softmax"]:
            lives &= torch.arange(tiles * rows) < (tiles - 1) * rows + fields["valid"]
            offset = self.state.probabilities[fields["probability_slot"]][
                self._within(self.config.max_tokens, fields, sources)]
            codes, operands = self._probabilities(fields, codes - MIDDLE, lives, offset)
        else:
            operands = decode_any(codes, fields, self.config)
        if fields["blank_first"]:
            lives[0] = False
        if pass_keeps(fields, self.config):
            self._keep(fields, torch.where(lives, codes, 0), index)
        return torch.where(lives, operands, 0)

    def _keep(self, fields: Mapping[str, int], codes: Tensor, index: int) -> None:
        """Put the codes of operands ``[T, K]`` into scratch."""
        addresses, halves = kept_places(fields, self.config)
        target = self.state.index("scratch", addresses, index)
        if len(codes) % 2:
            codes = torch.cat((codes, codes[-1:]))
        words = codes.unflatten(1, (fields["tiles"], -1)).transpose(0, 1)
        store(self.state.banks["scratch"], target, halves, words)

    def _probabilities(self, fields: Mapping[str, int], scores: Tensor, keep: Tensor,
                       offset: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and operands of probabilities, in the codes of the configuration."""
        config, multiplier = self.config, fields["softmax_multiplier"]
        if config.attention == "log2":
            # Offsets of other rows may give codes below 0: as the hardware, saturate.
            found = log2_codes(scores, keep, offset, ShiftScale(multiplier), config).clamp_min(0)
            return found, log2_format(config.attention_bits).operand(found)
        words = level_words(scores, offset, multiplier, fields["softmax_shift"],
                            fields["operand_m"], config)
        return words, decode_any(words, fields, config)

    def _within(self, most: int, fields: Mapping[str, int], sources: Tensor) -> Tensor:
        """Tokens whose statistics operands have, of `most` that are kept."""
        found = self.state.first(fields) + sources
        if int(found.max()) >= most:
            raise ValueError("statistics of tokens that are not kept")
        return found

    def _normalized(self, fields: Mapping[str, int], codes: Tensor, sources: Tensor) -> Tensor:
        norm = self.state.norm[fields["norm_slot"]]
        if not norm or len(norm["shift"]) < codes.shape[1]:
            raise ValueError("no norm parameters for these channels")
        gamma, offset, shift = (norm[name][:codes.shape[1]]
                                for name in ("gamma", "offset", "shift"))
        factors = self.state.factors[self._within(len(self.state.factors), fields, sources)]
        x = codes - fields["norm_zero_point"] << shift
        channels = int(factors[0, 0])
        if not bool((factors[:, 0] == channels).all()):
            raise ValueError("norm statistics must be those of a row")
        # Behind the last channel of a row there are codes of none; a gamma of 0 makes nothing of
        # them.
        _certain(x[:, gamma != 0], channels, factors[:, 1:2], factors[:, 2:], self.config)
        return normalize(x, channels, factors[:, 1:2], factors[:, 2:], gamma, offset, self.config,
                         fields["operand_bits"])

    def _weights(self, item: Instruction, index: int) -> Tensor:
        """Return weights int64 ``[tiles * rows, channels]``."""
        fields, channels = item.fields, pass_channels(item.fields, self.config)
        if item.weights is None:
            tiles = self.state.read("stationary", weight_addresses(fields, self.config), index)
            if not fields["by_column"]:
                # A row of the array is several words.
                tiles = tiles.reshape(len(tiles), self.config.rows, -1)
            tiles = stationary_weights(tiles, bool(fields["by_column"])) \
                if pass_paired(fields, self.config) else tiles - MIDDLE
            if fields["by_column"]:
                tiles = tiles.transpose(1, 2)
            # All columns of the array are read, whatever the pass has.
            tiles = tiles[..., :channels]
        else:
            tiles = torch.from_numpy(item.weights.astype(np.int64))
        return tiles.reshape(-1, channels)

    def _drain(self, item: Instruction, acc: Tensor, index: int) -> Tensor:
        fields, state = item.fields, self.state
        assert item.parameters is not None
        columns = {name: torch.from_numpy(column) for name, column in item.parameters.items()}
        if fields["operation"] == OPERATIONS["raw"]:
            result = self._wrap(acc + columns["bias"], 32)
            data = result.numpy().astype("<i4").tobytes()
            self.output[fields["offset"]:fields["offset"] + len(data)] = data
            return result
        bank = _BANKS[fields["destination"]]
        target = self.state.index(bank, result_addresses(fields, self.config), index)
        operation = _OPERATIONS[fields["operation"]]
        residual = None
        if operation == "residual":
            source = self.state.index("residual", residual_addresses(fields, self.config), index)
            codes = self.state.banks["residual"][source].reshape(acc.shape)
            residual = codes - fields["residual_zero_point"] << columns["residual_shift"]
        layer = Requantization(
            bias=columns["bias"], multiplier=columns["multiplier"], shift=columns["shift"],
            operation=operation, encoding=Encoding(), multiplier2=fields["multiplier2"])
        value = scale_values(acc, layer.bias, layer.multiplier, layer.shift, self.config)
        result = encode_any(operate(value, layer, self.config, residual), fields,
                            state.thresholds, columns["encode_shift"], self.config)
        words = result.reshape(*target.shape, -1)
        if pass_pack(fields, self.config):
            store(self.state.banks[bank], target, result_halves(fields, self.config), words)
        else:
            self.state.banks[bank][target] = words
        if fields["statistics"] == STATISTICS["norm"]:
            self.state.gather_norm(fields, result, columns["statistics_shift"])
        elif fields["statistics"] == STATISTICS["softmax"]:
            self.state.gather_softmax(fields, result)
        return result
