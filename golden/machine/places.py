# SPDX-License-Identifier: Apache-2.0
"""Which words of the scratchpad a pass reads and writes."""

__all__ = ["kept_places", "operand_addresses", "residual_addresses", "result_addresses",
           "result_halves", "weight_addresses"]

from collections.abc import Mapping

import numpy as np

from golden.machine.program import Array
from vitforge.spec.config import Config
from vitforge.spec.instruction import PACKS
from vitforge.spec.pass_fields import pass_pack, pass_words, weight_span
from vitforge.spec.sizes import tables, weight_words


def _steps(fields: Mapping[str, int], config: Config) -> tuple[Array, Array]:
    return np.arange(fields["tokens"])[:, None], np.arange(pass_words(fields, config))


def result_addresses(fields: Mapping[str, int], config: Config) -> Array:
    """Return the addresses ``[tokens, words]`` of a pass's results, not yet cut to their width."""
    (tokens, words), pack = _steps(fields, config), pass_pack(fields, config)
    if pack == PACKS["tokens"]:
        tokens = tokens // 2
    elif pack == PACKS["keys"]:
        tokens = tokens // (2 * config.cols) * config.cols + tokens % config.cols
    elif pack == PACKS["values"]:
        words = words % weight_words(config)
    return fields["d_base"] + tokens + fields["d_pitch"] * words


def result_halves(fields: Mapping[str, int], config: Config) -> Array:
    """Return which half of its byte each packed result takes, ``[tokens, words]``."""
    (tokens, words), pack = _steps(fields, config), pass_pack(fields, config)
    if pack == PACKS["values"]:
        return (words >= weight_words(config)) + 0 * tokens
    return tokens // (1 if pack == PACKS["tokens"] else config.cols) % 2 + 0 * words


def kept_places(fields: Mapping[str, int], config: Config) -> tuple[Array, Array]:
    """Return addresses, not yet cut, and halves of kept operands, ``[tiles, 2 * words]``.

    A last token without another takes both halves.
    """
    words = -(-fields["tokens"] // 2)
    tokens, tiles = np.arange(2 * words), np.arange(fields["tiles"])[:, None]
    return fields["offset"] + words * tiles + tokens // 2, tokens % 2 + 0 * tiles


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

    Row after row, with all words of each, or column after column, and then all of the array. A
    packed word is two words of a row, or two columns.
    """
    if fields["by_column"]:
        inside = np.arange(config.cols)
    else:
        words = fields["w_pitch"] * np.arange(weight_span(fields, config))
        inside = (np.arange(config.rows)[:, None] + words).reshape(-1)
    return fields["w_base"] + fields["w_stride"] * np.arange(fields["tiles"])[:, None] + inside
