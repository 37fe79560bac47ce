# SPDX-License-Identifier: Apache-2.0
"""Which words of the scratchpad a pass writes, and takes its stationary weights from."""

__all__ = ["result_addresses", "weight_addresses"]

from collections.abc import Mapping

import numpy as np

from golden.machine.program import Array
from vitforge.spec.config import Config
from vitforge.spec.pass_fields import pass_words


def result_addresses(fields: Mapping[str, int], config: Config) -> Array:
    """Return the addresses ``[tokens, words]`` of a pass's results, not yet cut to their width."""
    words = np.arange(pass_words(fields, config))
    return fields["d_base"] + np.arange(fields["tokens"])[:, None] + fields["d_pitch"] * words


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
