# SPDX-License-Identifier: Apache-2.0
"""Sizes that follow from the configuration, and that several engines share."""

__all__ = ["SHORT", "groups", "token_bits", "ADDRESS_BITS"]

from vitforge.spec.config import Config

#: Tokens from which on a bank may be overwritten while its last groups are read: the first token is
#: written that much ahead of the last one.
SHORT = 8
#: Width of every word address.
ADDRESS_BITS = 24


def groups(config: Config) -> int:
    """Return the groups of `lanes` channels of a token: of a word of the scratchpad."""
    return config.cols // config.lanes


def token_bits(config: Config) -> int:
    """Return the width of a token's number."""
    return max(1, (config.max_tokens - 1).bit_length())
