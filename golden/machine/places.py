# SPDX-License-Identifier: Apache-2.0
"""Which words of the scratchpad a pass reads and writes."""

__all__ = ["operand_addresses", "residual_addresses", "result_addresses", "weight_addresses"]

from collections.abc import Mapping

import numpy as np

from golden.machine.program import Array
from vitforge.spec.config import Config
from vitforge.spec.pass_fields import pass_words
from vitforge.spec.sizes import tables


def result_addresses(fields: Mapping[str, int], config: Config) -> Array:
    """Return the addresses ``[tokens, words]`` of a pass's results, not yet cut to their width."""
    words = np.arange(pass_words(fields, config))
    return fields["d_base"] + np.arange(fields["tokens"])[:, None] + fields["d_pitch"] * words


def residual_addresses(fields: Mapping[str, int], config: Config) -> Array:
    """Return the addresses ``[tokens, words]`` of what a pass adds, not yet cut to their width."""
    if not tables(config):
        return result_addresses(fields, config)
    return result_addresses({**fields, "d_base": fields["offset"]}, config)


def operand_addresses(fields: Mapping[str, int], tokens: Array) -> Array:
    """Return the addresses ``[tokens, tiles]`` of operands, not yet cut to their width.

    `tokens` are those whose words are read: the pass's, or those that a table has.
    """
    return fields["a_base"] + fields["a_stride"] * np.arange(fields["tiles"]) + tokens[:, None]


def weight_addresses(fields: Mapping[str, int], config: Config) -> Array:
    """Return the addresses ``[tiles, words]`` of a pass's stationary weights, in their order.

    Row after row, with all words of each, or column after column, and then all of the array.
    """
    if fields["by_column"]:
        inside = np.arange(config.cols)
    else:
        words = fields["w_pitch"] * np.arange(pass_words(fields, config))
        inside = (np.arange(config.rows)[:, None] + words).reshape(-1)
    return fields["w_base"] + fields["w_stride"] * np.arange(fields["tiles"])[:, None] + inside
