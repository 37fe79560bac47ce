# SPDX-License-Identifier: Apache-2.0
"""A published method on a network: decided and deployed once, then measured and priced.

Deciding takes seconds to an hour, and what it gives doesn't depend on the machine. So the record
and the integer network stay in a folder of the store, where every machine's cycles come from.
"""

__all__ = ["classify", "decide", "fitted", "machine", "network"]

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from explore.data import BATCH, Data
from explore.tally import Tally
from gen.compiler.fit import fit as fit_memories
from gen.compiler.fit import room
from golden.commands import methods
from golden.commands.quantize import configured
from golden.commands.quantize_options import RECONSTRUCTED
from golden.deploy.network import deploy, suited
from golden.deploy.widths import stored_widths, weight_bytes
from golden.network import file as network_file
from golden.network.fast import pixel_network
from golden.network.integers import Network
from golden.ptq.method import Method, apply
from golden.ptq.reconstruction_run import Kept, decided, plan_of
from golden.ptq.record import Record
from golden.ptq.widths import with_stream
from vitforge.base import stamps
from vitforge.spec.config import Config

RECORD = "record.json"


def _method(name: str, weights: int, activations: int) -> Method:
    """Build a method; of width 0 are what is the method's own."""
    widths = {key: bits for key, bits in (("weights", weights), ("activations", activations))
              if bits}
    return configured(name, with_stream(name, widths), ())


def decide(data: Data, name: str, weights: int, activations: int, config: Config, folder: Path, *,
           fit: bool = False) -> dict[str, Any]:
    """Decide and deploy a method; its record and integer network go into `folder`.

    Parameters
    ----------
    weights, activations
        Widths; 0 is the method's own.
    config
        Whose widths of scores, values and the like the integers have; its attention codes become
        those next to the method's.
    fit
        Whether the longest rows are those of the network.

    Returns
    -------
    dict
        ``attention`` and ``attention_bits``, which a machine must have; ``weight_mean_bits``,
        ``operand_mean_bits`` and ``stream_mean_bits`` as deployed, and ``weight_bytes``.

    Raises
    ------
    ValueError
        If the method has no formats at these widths, or the datapath none for its.
    """
    method = _method(name, weights, activations)
    config = room(data.model.spec, config) if fit else config
    kept = Kept(folder.with_suffix(".units"), folder.name)
    few = methods.images(method.name)
    images = data.calibration(RECONSTRUCTED if plan_of(method) else few)
    statistics, record = decided(method, data.model, images.split(BATCH), few, kept)
    found, _ = deploy(data.model, record, suited(config, record), statistics=statistics,
                      preprocessing=data.how)
    with stamps.filling(folder, folder.name) as needed:
        if needed:
            record.save(folder / RECORD)
            network_file.save(folder / network_file.NAME, found, {"method": name})
    kept.clear()
    widths = stored_widths(found)
    return {"attention": found.config.attention, "attention_bits": found.config.attention_bits,
            "weight_mean_bits": widths.weight, "operand_mean_bits": widths.operand,
            "stream_mean_bits": widths.stream, "weight_bytes": weight_bytes(found)}


def network(folder: Path, config: Config) -> Network:
    """Return the integer network in a folder, for a machine with its attention codes."""
    found = network_file.load(folder)
    return dataclasses.replace(found, config=machine(config, found.config.to_dict()))


def fitted(folder: Path, config: Config) -> dict[str, int]:
    """Return what `gen.compiler.fit.fit` changes of a machine for the network in a folder."""
    found = fit_memories(network(folder, config)).to_dict()
    return {name: value for name, value in found.items()
            if isinstance(value, int) and value != getattr(config, name)}


def machine(config: Config, facts: Mapping[str, Any]) -> Config:
    """Return the machine with the attention codes of a decided network."""
    return dataclasses.replace(config, attention=facts["attention"],
                               attention_bits=facts["attention_bits"])


def classify(data: Data, folder: Path) -> dict[str, Any]:
    """Measure a decided network, in float simulation and in integers.

    Returns
    -------
    dict
        As `explore.workload.accuracy`, and ``simulated_top1``, per cent.
    """
    simulated = apply(data.model, Record.load(folder / RECORD))
    found = network_file.load(folder)
    integers = pixel_network(found, data.how)
    tally = Tally()
    simulated_right = 0
    with torch.inference_mode():
        for images, labels in data.batches():
            tally.add(data.model(images), integers(images).double() * found.logit_scale, labels)
            simulated_right += int((simulated(images).argmax(1) == labels).sum())
    return {**tally.result(), "simulated_top1": 100 * simulated_right / tally.images}
