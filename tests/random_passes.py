# SPDX-License-Identifier: Apache-2.0
"""Programs of random passes, in the order of whose reads and writes nothing is left to chance."""

__all__ = ["program"]

import numpy as np

from gen.compiler.check import hazards
from gen.compiler.image import inline_load
from gen.compiler.steps import pass_fields
from golden.machine.places import residual_addresses, result_addresses, weight_addresses
from golden.machine.program import Instruction, assemble
from vitforge.spec.config import Config
from vitforge.spec.instruction import (
    DESTINATIONS,
    LINE,
    MODES,
    OPERATIONS,
    PACKS,
    PARAMETER,
    STATISTICS,
    TABLE,
)
from vitforge.spec.pass_fields import operand_words
from vitforge.spec.sizes import ENTRY, doubled, most_words, paired, tables, weight_words

#: Words of every bank that are used.
WORDS = 128
#: The largest index of a table.
FARTHEST = 20


def _parameters(channels: int, rng: np.random.Generator, raw: bool) -> dict[str, np.ndarray]:
    ranges = {"bias": (-1 << 14, 1 << 14), "multiplier": (1 << 14, 1 << 16), "shift": (17, 24),
              "encode_shift": (4, 9), "residual_shift": (0, 4), "statistics_shift": (0, 4)}
    assert set(ranges) == {item.name for item in PARAMETER.fields}
    return {name: np.zeros(channels, np.int64) if raw and name != "bias" else
            rng.integers(*ends, channels) for name, ends in ranges.items()}


def _base(rng: np.random.Generator, reach: int) -> int:
    return int(rng.integers(WORDS - reach))


class _Passes:
    """Draws passes; `fill` is for the words of the stationary bank, which nothing else brings."""

    def __init__(self, config: Config, rng: np.random.Generator):
        self.config, self.rng = config, rng
        self.output = 0

    def draw(self, **given: int) -> Instruction:
        """Return a pass of which some fields are given."""
        rng, config = self.rng, self.config
        given = self.mode(given) | given
        most = most_words(config) if given["mode"] else weight_words(config)
        words = given.get("words", int(rng.integers(most))) + 1
        operation = given.get("operation", int(rng.integers(4)))
        raw = operation == OPERATIONS["raw"]
        tokens, tiles = given.get("tokens", int(rng.integers(1, 17))), int(rng.integers(1, 4))
        fields = {
            "operation": operation, "words": words - 1, "tokens": tokens, "tiles": tiles,
            "weight_bits": int(rng.integers(2, 9)), "bits": 8,
            "a_stride": int(rng.integers(25)), "from_residual": int(rng.integers(2)),
            "operand_zero_point": int(rng.integers(256)), "operand_bits": 8,
            "zero_point": int(rng.integers(256)), "d_pitch": int(rng.integers(tokens, 22)),
            "residual_zero_point": int(rng.integers(256)),
            "multiplier2": int(rng.integers(1 << 16)), "stationary": int(rng.integers(2)),
            "by_column": int(rng.integers(2)), "w_stride": int(rng.integers(16)),
            "w_pitch": int(rng.integers(16)), "statistics_first": 1,
            "statistics_last": int(rng.integers(2)),
            # Of the residual stream the row must be one that LayerNorm could have.
            "statistics": 0 if raw or rng.integers(2) else STATISTICS["softmax"],
            "softmax_multiplier": int(rng.integers(1 << 14)),
            "valid": int(rng.integers(1, words * config.rows + 1)),
            "destination": DESTINATIONS["memory"] if raw else
            DESTINATIONS["residual"] if operation == OPERATIONS["residual"] else
            int(rng.integers(3)),
        }
        if raw:
            fields |= {"offset": self.output, "d_pitch": 0}
        if doubled(config):
            fields |= self.halves(given["mode"], operation)
        reach = tokens
        if tables(config):
            reach = max(tokens, FARTHEST + 1)
            fields |= {"gathers": int(rng.integers(2)), "f_base": int(rng.integers(8)),
                       "a_table": int(rng.integers(config.table_tokens - tokens + 1))}
            if operation == OPERATIONS["residual"]:
                fields["offset"] = _base(rng, (words - 1) * fields["d_pitch"] + tokens)
        fields = pass_fields(**fields | given)
        if not tables(config):
            reach = operand_words(fields, config)
        fields["a_base"] = _base(rng, (tiles - 1) * fields["a_stride"] + reach)
        fields["w_base"] = _base(rng, 1 + int(weight_addresses(fields, config).max()))
        if fields["keep"]:
            fields["offset"] = _base(rng, tiles * -(-tokens // 2))
        if not raw and "d_base" not in given:
            fields["d_base"] = _base(rng, 1 + int(result_addresses(fields, config).max()))
        channels, half = words * config.rows, 1 << fields["weight_bits"] - 1
        low = -half
        if fields["mode"]:
            half = half >> config.packed_weight_bits or 1
            low = 1 - half
        weights = None if fields["stationary"] else rng.integers(
            low, half, (tiles, config.rows, channels)).astype(np.int8)
        if raw:
            self.output += -(-tokens * channels * 4 // LINE) * LINE
        return Instruction("PASS", fields, None,
                           _parameters(channels, rng, raw), weights)

    def mode(self, given: dict[str, int]) -> dict[str, int]:
        """Draw how many weights a multiplier takes, if there is a choice."""
        if not paired(self.config):
            return {"mode": MODES["single"]}
        packs = doubled(self.config)
        if (given.get("stationary") and not packs) or self.rng.integers(3 if packs else 2) == 0:
            return {"mode": MODES["single"]}
        # Elements of two weights: the upper one's bits, and all of the lower one.
        return {"mode": MODES["quad"] if packs and self.rng.integers(2) else MODES["pair"],
                "stationary": int(self.rng.integers(2)) if packs else 0,
                "weight_bits": int(self.rng.integers(2, self.config.packed_weight_bits + 1))
                + self.config.packed_weight_bits}

    def halves(self, mode: int, operation: int) -> dict[str, int]:
        """Draw what a pass does with codes of 4 bits."""
        rng, raw = self.rng, operation == OPERATIONS["raw"]
        found = {"pack": 0 if raw or operation == OPERATIONS["residual"]
                 else int(rng.integers(len(PACKS))),
                 "keep": int(mode != MODES["quad"] and not raw and rng.integers(4) == 0)}
        if mode == MODES["quad"] and self.config.multiplier == "18x18":
            found["operand_zero_point"] = 8 + 16 * int(rng.integers(16))
        return found

    def fill(self) -> list[Instruction]:
        """Return passes that write all words of the stationary bank, from the stream's weights."""
        most, made, base = weight_words(self.config), list[Instruction](), 0
        while base < WORDS:
            words = min(int(self.rng.integers(most)) + 1, (WORDS - base) // 16)
            made.append(self.draw(operation=0, stationary=0, destination=2, tokens=16, d_base=base,
                                  d_pitch=16, words=words - 1, statistics=0, pack=0, keep=0))
            base += 16 * words
        return made


def _certain(loads: list[Instruction], made: list[Instruction], config: Config) -> bool:
    """Whether the last pass takes nothing that the passes just before make, and waits for nothing.

    Nothing waits for a residual that a drain adds, and its bank has one port to read from.
    """
    try:
        hazards([*loads, *made], config)
    except ValueError:
        return False
    fields, before = made[-1].fields, [item.fields for item in made[-4:-1]]
    if fields["from_residual"] and any(other["operation"] == OPERATIONS["residual"]
                                       for other in before):
        return False
    if fields["operation"] != OPERATIONS["residual"]:
        return True
    taken = set(residual_addresses(fields, config).flat)
    return all(taken.isdisjoint(result_addresses(other, config).flat) for other in before
               if other["destination"] == DESTINATIONS["residual"])


def program(config: Config, seed: int, passes: int) -> tuple[bytes, int]:
    """Return a program, and the bytes of its output buffer.

    Every pass waits for the others as long as the compiler would let it; what would read results
    that nothing waits for is drawn again.
    """
    rng = np.random.default_rng(seed)
    drawn = _Passes(config, rng)
    loads = [Instruction("LOAD", inline_load(0, WORDS, config) | {"destination": bank},
                         data=rng.bytes(WORDS * config.rows)) for bank in (0, 1)]
    if tables(config):
        several = config.rows * 8 // ENTRY
        words = config.table_tokens // several
        index = rng.integers(0, FARTHEST + 1, words * several).astype("<u2")
        loads.append(Instruction("LOAD", inline_load(0, words, config) | {"destination": TABLE},
                                 data=index.tobytes()))
    made = drawn.fill()
    while len(made) < passes:
        before = drawn.output
        raw = {"operation": OPERATIONS["raw"]} if rng.integers(3) == 0 else {}
        made.append(drawn.draw(**raw))
        if not _certain(loads, made, config):
            made.pop()
            drawn.output = before
    waits = hazards([*loads, *made], config)
    ordered = [Instruction("PASS", dict(item.fields) | {"late": late, "pending": pending},
                           item.norm, item.parameters, item.weights)
               for item, (late, pending) in zip(made, waits, strict=True)]
    return assemble([*loads, *ordered, Instruction("END", {})], config), drawn.output
