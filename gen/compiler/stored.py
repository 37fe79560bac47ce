# SPDX-License-Identifier: Apache-2.0
"""An integer network that `golden.quantize` has written, for a core that can run it."""

__all__ = ["is_file", "stored"]

import dataclasses
from pathlib import Path

from golden.network import file as network_file
from golden.network.integers import Network
from vitforge.spec.config import Config

#: Fields that no integer of a network depends on: the shape of the core, its memories, and its
#: formats, which the compiler compares with the network's. (With other lanes or channels, the last
#: bit of a softmax or LayerNorm may differ.)
_SHAPE = frozenset({
    "name", "rows", "cols", "lanes", "pe_style", "multiplier", "drain_products", "modes",
    "packed_weight_bits", "max_keys", "max_channels", "max_tokens", "table_tokens", "stream_tokens",
    "scratch_words", "residual_words", "stationary_words", "axi_bits",
    "burst_beats", "fetch_beats", "formats"})


def is_file(model: str) -> bool:
    """Whether MODEL is a path, of something that is there or looks like it, and no name."""
    path = Path(model)
    return path.exists() or path.suffix in (".json", ".safetensors") or len(path.parts) > 1


def stored(path: Path, config: Config) -> Network:
    """Read an integer network for a configuration: that it was made for, or one like it.

    Raises
    ------
    ValueError
        If the file holds none, or a field of the configuration differs that its integers depend on;
        the message names it.
    """
    network = network_file.load(path)
    for item in dataclasses.fields(Config):
        made, given = getattr(network.config, item.name), getattr(config, item.name)
        if item.name not in _SHAPE and made != given:
            raise ValueError(f"{item.name} must be {made}, as when {path} was made, not {given}")
    return dataclasses.replace(network, config=config)
