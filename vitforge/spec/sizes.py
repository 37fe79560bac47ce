# SPDX-License-Identifier: Apache-2.0
"""Sizes that follow from the configuration, and that several engines share."""

__all__ = ["ADDRESS_BITS", "ENTRY", "SHORT", "columns", "doubled", "groups", "most_words",
           "paired", "short_tokens", "stream_bits", "stream_tokens", "tables", "token_bits",
           "weight_words", "word_groups"]

from vitforge.spec.config import Config

#: Tokens from which on a bank may be overwritten while its last groups are read: the first token is
#: written that much ahead of the last one.
SHORT = 8
#: Width of every word address.
ADDRESS_BITS = 24


#: Bits of an index of a token in the bytes of a program.
ENTRY = 16


def tables(config: Config) -> bool:
    """Return whether passes may gather their operands by a table of tokens.

    Then a residual has an address of its own too, and LayerNorm's factors those of a whole stream.
    """
    return config.table_tokens > 0


def stream_tokens(config: Config) -> int:
    """Return the tokens whose LayerNorm factors are kept."""
    return max(config.max_tokens, config.stream_tokens if tables(config) else 0)


def stream_bits(config: Config) -> int:
    """Return the width of the number of a token whose factors are kept."""
    return max(1, (stream_tokens(config) - 1).bit_length())


def paired(config: Config) -> bool:
    """Return whether a multiplier may take two weights at once, where a pass says so."""
    return "pair" in config.modes.split("+")


def doubled(config: Config) -> bool:
    """Return whether a multiplier may take two tokens at once, where a pass says so."""
    return "quad" in config.modes.split("+")


def short_tokens(config: Config) -> int:
    """Return the tokens from which on a pass's accumulators are released before its last group.

    So many words of operands, at least, does the next pass then have: a word may be of two tokens.
    """
    return SHORT << doubled(config)


def weight_words(config: Config) -> int:
    """Return how many times `rows` elements a row of weights has at most: those of the array."""
    return config.cols // config.rows


def most_words(config: Config) -> int:
    """Return the words of the scratchpad, of `rows` channels, that a pass makes of a token at most.

    An array with more columns than rows makes several, and one whose multipliers take two weights
    twice as many; a pass says how many of them it has.
    """
    return weight_words(config) << paired(config)


def columns(config: Config) -> int:
    """Return the channels of a pass at most: sums of a token, accumulators, parameters."""
    return most_words(config) * config.rows


def word_groups(config: Config) -> int:
    """Return the groups of `lanes` channels of a word of the scratchpad."""
    return config.rows // config.lanes


def groups(config: Config) -> int:
    """Return the groups of `lanes` channels of a token at most."""
    return columns(config) // config.lanes


def token_bits(config: Config) -> int:
    """Return the width of a token's number."""
    return max(1, (config.max_tokens - 1).bit_length())
