# SPDX-License-Identifier: Apache-2.0
"""What the hardware takes for granted of a program, checked on the instructions themselves.

The accelerator overlaps passes and waits for few things: when a pass begins, the drains of all
passes up to the third before it have landed; at tile `late` those of all passes before it but the
last `pending`. So

- operands that one of the two passes before makes are read from tile `late` on only, and LayerNorm
  and softmax operands whose statistics these passes finish need ``late = 0``; if the last pass
  makes none of them, `pending` is 1;
- operands come from the residual bank only when no pass that adds a residual is being drained,
  whatever words these are: the bank has one port to read from. LayerNorm's statistics see to that
  where all such operands are normalised; where there are tables the pass waits;
- stationary weights, and a residual with an address of its own, are made by the third pass before
  or earlier; and such a residual lies apart from the pass's results, which are written while it is
  read;
- the sums of a pass of less than `SHORT` words and several tiles are read again so soon that the
  accumulators' last reads of the second pass before it must be over: that is as short, raw, or
  waited for;
- a pass that keeps its operands begins when all before it have landed, and what it keeps isn't what
  it reads; who reads it next does so `KEPT` words later at least, or waits for the pass;
- norm parameters are fetched while up to three passes before are under way, so a half of their
  memory is written again only if the fourth pass before is its last user or an earlier one.

A LOAD begins when all passes before it have landed; so those behind it wait for none of them.

A drain writes after its own pass has read everything, so nothing is overwritten too early.
"""

__all__ = ["bound", "hazards", "operand_bound", "reach"]

from collections.abc import Iterable, Mapping

import numpy as np

from gen.compiler.memory import bank_words
from golden.machine.places import (
    kept_places,
    operand_addresses,
    residual_addresses,
    result_addresses,
    result_halves,
    weight_addresses,
)
from golden.machine.program import Array, Instruction
from golden.units.softmax_bound import row_bound
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS, FORMATS, MIDDLE
from vitforge.spec.instruction import (
    DESTINATIONS,
    LATE_NEVER,
    OPERANDS,
    OPERATIONS,
    STATISTICS,
    TABLE,
)
from vitforge.spec.pass_fields import (
    operand_words,
    pass_keeps,
    pass_pack,
    pass_paired,
)
from vitforge.spec.sizes import ENTRY, SHORT, short_tokens, stream_tokens, tables
from vitforge.spec.timing import KEPT

#: A pass that has landed whenever one asks.
_LONG_AGO = -10
#: A request before all others.
_NEVER = -1_000_000
#: Passes before the current one that have landed when it begins: this one and all earlier.
_LANDED = 3
_BANKS = {number: name for name, number in DESTINATIONS.items() if name != "memory"}


class _Writers:
    """The pass that wrote each word of the banks, and each kind of statistics, last."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.banks = {name: np.full(bank_words(name, config), _LONG_AGO)
                      for name in _BANKS.values()}
        self.factors = np.full(stream_tokens(config), _LONG_AGO)
        self.table = np.zeros(config.table_tokens, np.int64)
        self.adding = _LONG_AGO     # the last pass that adds a residual
        self.probabilities = np.full((2, config.max_tokens), _LONG_AGO)
        self.requests = 0           # words that the passes before have asked for
        # The request that each word was kept of, if it is a kept one.
        self.asked = np.full(bank_words("scratch", config), _NEVER)

    def of(self, bank: str, index: Array) -> Array:
        return self.banks[bank][index]

    def write(self, number: int, fields: Mapping[str, int]) -> None:
        # Operands are kept before there are results, which may lie over those that nobody reads.
        if pass_keeps(fields, self.config):
            words = kept_places(fields, self.config)[0]
            self.banks["scratch"][words] = number
            # The last request of a word's tokens; the larger one is assigned last.
            self.asked[words] = self._requests(fields, np.minimum(
                np.arange(words.shape[1]), fields["tokens"] - 1)).T
        if fields["operation"] != OPERATIONS["raw"]:
            places = result_addresses(fields, self.config)
            halves = 2 * places
            if pass_pack(fields, self.config):
                halves += result_halves(fields, self.config)
            if len(np.unique(halves)) < halves.size:
                raise ValueError(f"pass {number} writes words twice")
            self.banks[_BANKS[fields["destination"]]][places] = number
            if _BANKS[fields["destination"]] == "scratch":
                self.asked[places] = _NEVER
        if fields["operation"] == OPERATIONS["residual"]:
            self.adding = number
        tokens = np.arange(fields["tokens"]) + fields["f_base"]
        if fields["statistics_last"] and fields["statistics"] == STATISTICS["norm"]:
            self.factors[tokens] = number
        if fields["statistics_last"] and fields["statistics"] == STATISTICS["softmax"]:
            self.probabilities[fields["probability_slot"], tokens] = number
        self.requests += fields["tiles"] * operand_words(fields, self.config)

    def _requests(self, fields: Mapping[str, int], words: Array) -> Array:
        """Numbers ``[words, tiles]`` of a pass's requests, its first words being a tile's."""
        return (self.requests + operand_words(fields, self.config) * np.arange(fields["tiles"])
                + words[:, None])

    def operands(self, fields: Mapping[str, int]) -> Array:
        """Return the passes ``[words, tiles]`` whose results a pass must have as operands.

        A kept word that is asked for `KEPT` requests later at least is there: its pass is
        `_LONG_AGO`.
        """
        words = self.words(fields)
        places = operand_addresses(fields, words)
        if fields["from_residual"]:
            return self.banks["residual"][places]
        later = self._requests(fields, fields["blank_first"] + np.arange(words.size)) \
            - self.asked[places]
        kept = self.asked[places] != _NEVER
        return np.where(kept & (later >= KEPT), _LONG_AGO, self.banks["scratch"][places])

    def load(self, item: Instruction) -> None:
        """Note the indices of a LOAD of a table.

        A LOAD begins when all passes before it have landed, and its words are there for the next.
        """
        for makers in (*self.banks.values(), self.factors, self.probabilities):
            makers.fill(_LONG_AGO)
        self.adding = _LONG_AGO
        if item.fields["destination"] == TABLE and item.data is not None:
            start = item.fields["base"] * self.config.rows * 8 // ENTRY
            index = np.frombuffer(item.data, "<u2")[:max(0, len(self.table) - start)]
            self.table[start:start + len(index)] = index

    def tokens(self, fields: Mapping[str, int]) -> Array:
        """Tokens whose words a pass reads, but for a blank first one."""
        found = np.arange(fields["tokens"])
        if fields["gathers"] and len(self.table):
            found = self.table[fields["a_table"] + found]
        return found[fields["blank_first"]:]

    def words(self, fields: Mapping[str, int]) -> Array:
        """Words that a pass reads of a tile: one of a token, or of two."""
        return self.tokens(fields)[:operand_words(fields, self.config)]


def hazards(instructions: Iterable[Instruction], config: Config) -> list[tuple[int, int]]:
    """Return the largest `late` and `pending` that are safe for each pass, in order.

    Raises
    ------
    ValueError
        If a pass reads what no `late` protects, writes a word twice, or writes over its residual:
        the message says which and why.
    """
    writers = _Writers(config)
    users = [_LONG_AGO, _LONG_AGO]
    needed: list[tuple[int, int]] = []
    passes: list[Mapping[str, int]] = []
    landed = -1                     # the last pass that has landed when this one begins
    for item in instructions:
        if item.kind == "LOAD":
            writers.load(item)
            landed, users = len(passes) - 1, [_LONG_AGO, _LONG_AGO]
        if item.kind != "PASS":
            continue
        number, fields = len(passes), item.fields
        passes.append(fields)
        recent = number - _LANDED
        if fields["stationary"]:
            latest = int(writers.of("stationary", weight_addresses(fields, config)).max())
            if latest > recent:
                raise ValueError(f"pass {number} takes stationary weights that pass {latest} makes")
        if tables(config) and fields["operation"] == OPERATIONS["residual"] \
                and fields["offset"] != fields["d_base"]:
            added = residual_addresses(fields, config)
            latest = int(writers.of("residual", added).max())
            if latest > recent:
                raise ValueError(f"pass {number} adds a residual that pass {latest} makes")
            if fields["destination"] == DESTINATIONS["residual"] \
                    and np.isin(added, result_addresses(fields, config)).any():
                raise ValueError(f"pass {number} writes over what it adds")
        late, pending = _late(fields, writers, number)
        if number - 2 > max(landed, number - 1 - pending if late == 0 else -1) \
                and _collides(fields, passes[number - 2], config):
            late, pending = 0, 1 if late == LATE_NEVER else min(pending, 1)
        if pass_keeps(fields, config):
            late, pending = 0, 0
            if not fields["from_residual"] and not set(
                    operand_addresses(fields, writers.words(fields)).flat).isdisjoint(
                        kept_places(fields, config)[0].flat):
                raise ValueError(f"pass {number} keeps operands over those that it reads")
        needed.append((late, pending))
        landed = max(landed, number - 1 - pending) if late == 0 else landed
        if fields["operand"] == OPERANDS["norm"]:
            slot = fields["norm_slot"]
            if fields["has_norm"] and users[slot] > recent - 1:
                raise ValueError(f"pass {number} loads norm parameters over those that pass "
                                 f"{users[slot]} uses")
            users[slot] = number
        writers.write(number, fields)
    return needed


def _collides(fields: Mapping[str, int], before: Mapping[str, int], config: Config) -> bool:
    """Whether a pass may read its sums while those of the second pass before it are drained."""
    return (operand_words(fields, config) < SHORT and fields["tiles"] > 1
            and before["tokens"] >= short_tokens(config)
            and before["operation"] != OPERATIONS["raw"])


def _late(fields: Mapping[str, int], writers: _Writers, number: int) -> tuple[int, int]:
    """First tile that needs something of the two passes before, and how many of them may wait."""
    recent = number - _LANDED
    statistics = _LONG_AGO
    tokens = writers.tokens(fields)
    if tokens.size and fields["operand"] == OPERANDS["norm"]:
        statistics = int(writers.factors[fields["f_base"] + tokens].max())
    if tokens.size and fields["operand"] == OPERANDS["softmax"]:
        statistics = int(writers.probabilities[fields["probability_slot"],
                                               fields["f_base"] + tokens].max())
    makers = np.full(fields["tiles"], _LONG_AGO)
    if writers.words(fields).size:
        makers = writers.operands(fields).max(0)
    makers[0] = max(makers[0], statistics)
    if fields["from_residual"]:
        # The bank has one port to read from, and a drain that adds doesn't wait for it. (A norm
        # waits for its statistics anyway, which the last of those passes makes.)
        makers[0] = max(makers[0], writers.adding)
    if makers.max() <= recent:
        return LATE_NEVER, 0
    return int((makers > recent).argmax()), int(number - 1 - makers.max())


def operand_bound(fields: Mapping[str, int]) -> int:
    """Return the largest absolute operand that a pass's format can give."""
    bits = fields["operand_bits"] or CODE_BITS
    if fields["operand_format"] == FORMATS["two-scale"]:
        half = fields["operand_signed"]
        return ((1 << bits - 1 - half) - 1 + half) << fields["operand_m"]
    if fields["operand_format"] == FORMATS["log2"]:
        return 1 << (1 << bits) - 1
    zero = fields["operand_zero_point"]
    return max(zero, (1 << bits) - 1 - zero)


def bound(instruction: Instruction, config: Config) -> int:
    """Return a bound of the absolute accumulators of a pass, bias included where it is raw.

    ``|acc| <= sum of |weight| * max|operand|``; a stationary weight is at most 128, or 7 if it is
    packed, and keys that aren't there give operands of 0. The operands of log2 probabilities add up
    to no more than `golden.units.softmax_bound.row_bound`, if their pass has the keys and the
    multiplier of its rows' statistics, as in a program of the compiler.
    """
    fields = instruction.fields
    stationary = (1 << config.packed_weight_bits - 1) - 1 if pass_paired(fields, config) else MIDDLE
    log2 = config.attention == "log2"
    if instruction.weights is not None:
        weights = int(np.abs(instruction.weights.astype(np.int64)).sum((0, 1)).max())
        result = weights * operand_bound(fields)
    elif fields["operand"] == OPERANDS["softmax"]:
        keys = (fields["tiles"] - 1) * config.rows + fields["valid"]
        result = (row_bound(keys, config) if log2 else keys * operand_bound(fields)) * stationary
    else:
        result = fields["tiles"] * config.rows * operand_bound(fields) * stationary
    if fields["operation"] == OPERATIONS["raw"]:
        assert instruction.parameters is not None
        result += int(np.abs(instruction.parameters["bias"]).max())
    return result


def reach(instruction: Instruction, config: Config) -> int:
    """Return the least number that no absolute accumulator of a pass, and no bias, is above.

    A bias has the width of the accumulators that it is added to.
    """
    assert instruction.parameters is not None
    bias = instruction.parameters["bias"]
    return max(bound(instruction, config), int(bias.max()), -1 - int(bias.min()))
