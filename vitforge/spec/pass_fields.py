# SPDX-License-Identifier: Apache-2.0
"""What each engine of the accelerator needs to know of a pass: subsets of the instruction."""

__all__ = ["DRAIN_FIELDS", "OPERAND_FIELDS", "PASSES", "PASS_SLOTS", "REQUEST_FIELDS",
           "TABLE_FIELDS", "WEIGHT_FIELDS", "operand_words", "pass_doubled", "pass_keeps",
           "pass_pack", "pass_paired", "pass_words", "weight_span"]

from collections.abc import Mapping

from vitforge.spec.config import Config
from vitforge.spec.instruction import MODES
from vitforge.spec.sizes import doubled, most_words, paired, weight_words

#: Passes that may be under way from the sequencer to the scratchpad, and slots of the drain's
#: parameter memory: one is fetched, one computes, one is drained, one lands.
PASSES = 4
PASS_SLOTS = PASSES

#: Travel with every word through the operand path.
OPERAND_FIELDS = ("operand", "operand_format", "operand_zero_point", "operand_m", "operand_signed",
                  "operand_bits", "norm_zero_point", "norm_slot", "probability_slot",
                  "softmax_multiplier", "softmax_shift")
REQUEST_FIELDS = ("tokens", "tiles", "valid", "late", "pending", "from_residual", "a_base",
                  "a_stride", "blank_first", *OPERAND_FIELDS)
WEIGHT_FIELDS = ("tiles", "stationary", "by_column", "w_base", "w_stride")
DRAIN_FIELDS = ("tokens", "valid", "channels", "probability_slot", "statistics",
                "statistics_first", "statistics_last", "destination", "operation", "d_base",
                "softmax_multiplier", "format", "zero_point", "bits", "m", "signed",
                "residual_zero_point", "multiplier2", "lowest", "offset")

#: More of `REQUEST_FIELDS`, where there are tables.
TABLE_FIELDS = ("a_table", "f_base", "gathers")


def pass_words(fields: Mapping[str, int], config: Config) -> int:
    """Return the words of a token that a pass makes: 1 where no pass can make more."""
    return fields["words"] + 1 if most_words(config) > 1 else 1


def pass_paired(fields: Mapping[str, int], config: Config) -> bool:
    """Return whether the multipliers take two weights of a pass: never where none can."""
    return paired(config) and fields["mode"] != MODES["single"]


def pass_doubled(fields: Mapping[str, int], config: Config) -> bool:
    """Return whether the multipliers take two tokens of a pass: never where none can."""
    return doubled(config) and fields["mode"] == MODES["quad"]


def pass_pack(fields: Mapping[str, int], config: Config) -> int:
    """Return which codes of a pass share a byte, of `PACKS`: none where none can."""
    return fields["pack"] if doubled(config) else 0


def pass_keeps(fields: Mapping[str, int], config: Config) -> bool:
    """Return whether a pass keeps the codes of its operands."""
    return doubled(config) and bool(fields["keep"])


def operand_words(fields: Mapping[str, int], config: Config) -> int:
    """Return the words of operands of a tile: one of a token, or of two."""
    return -(-fields["tokens"] // 2) if pass_doubled(fields, config) else fields["tokens"]


def weight_span(fields: Mapping[str, int], config: Config) -> int:
    """Return how many times `rows` elements a word of a pass's streamed weights has."""
    return min(pass_words(fields, config), weight_words(config))
