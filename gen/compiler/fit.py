# SPDX-License-Identifier: Apache-2.0
"""The smallest memories of a configuration that hold a network; its array stays what it is."""

__all__ = ["fit", "room", "toml"]

import dataclasses
import json
from dataclasses import fields

from gen.compiler.memory import allocate, bank_words, lives
from gen.compiler.schedule import schedule, styles
from gen.compiler.swin_order import Order
from golden.float.swin import SwinSpec
from golden.network.integers import Network
from golden.network.topology import Spec
from vitforge.spec.config import Config

_BANKS = ("scratch", "residual", "stationary")
_LIMITS = {item.name: item.metadata for item in fields(Config)}


def room(spec: Spec, config: Config) -> Config:
    """Return a configuration whose rows are as long as a network's, and no longer; and its GELU.

    The rows of softmax, LayerNorm and the accumulators: `max_keys`, `max_channels`, `max_tokens`.
    Of a network with windows the accumulators stay as they are if a part of its tokens fits, and
    the residual stream and the table of tokens are as large as they must be.

    Raises
    ------
    ValueError
        If a row is longer than there can be; the message names the field.
    """
    channels = -(-spec.widest // config.rows) * config.rows
    tokens = spec.tokens
    if isinstance(spec, SwinSpec):
        tokens = min(tokens, max(spec.keys, config.max_tokens))
    config = dataclasses.replace(config, gelu=spec.gelu)
    config = _changed(config, max_tokens=max(2, tokens), max_keys=max(spec.keys, config.lanes),
                      max_channels=max(2, channels, config.lanes))
    if not isinstance(spec, SwinSpec):
        return config
    return _changed(config, table_tokens=Order(spec, config).table_tokens(),
                    stream_tokens=0 if spec.tokens <= config.max_tokens else spec.tokens)


def fit(network: Network) -> Config:
    """Return the smallest configuration of a network's array that holds it.

    Of the orders of its passes (`gen.compiler.schedule.styles`) the one that needs fewest words of
    scratchpad in all, the fastest of these, decides the three banks.

    Raises
    ------
    ValueError
        As `room`, or if a bank is larger than there can be.
    """
    config = room(network.spec, network.config)
    endless = dataclasses.replace(config, **{
        f"{bank}_words": _LIMITS[f"{bank}_words"]["high"] for bank in _BANKS})  # type: ignore
    network = dataclasses.replace(network, config=endless)
    needs = []
    for style in styles(network):
        plan = schedule(network, style)
        needs.append(allocate(lives(plan.steps, plan.loaded), endless))
    least = min(needs, key=lambda needed: sum(needed.values()))
    return _changed(config, **{f"{bank}_words": max(_LIMITS[f"{bank}_words"]["low"], words)
                               for bank, words in least.items()})


def _changed(config: Config, **values: int) -> Config:
    """Return a configuration with other values, and its name with them."""
    for name, value in values.items():
        if value > (high := _LIMITS[name]["high"]):
            raise ValueError(f"{name} would have to be {value} for this network, and may be at "
                             f"most {high}")
    name = config.name.removesuffix("-fit") + "-fit"
    return dataclasses.replace(config, name=name, **values)   # type: ignore[arg-type]


def toml(config: Config) -> str:
    """Return the TOML file of a configuration, with every field."""
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in config.to_dict().items()]
    size = sum(bank_words(bank, config) for bank in _BANKS) * config.rows
    return (f"# SPDX-License-Identifier: Apache-2.0\n# {size:,} bytes of scratchpad.\n"
            + "".join(lines))
