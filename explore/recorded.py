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
from gen.compiler.check import reach
from gen.compiler.compile import compile_network
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
from golden.ptq import own
from golden.ptq.method import Method, apply
from golden.ptq.reconstruction_run import Kept, decided, plan_of
from golden.ptq.record import Record
from golden.ptq.widths import with_stream
from vitforge.base import stamps
from vitforge.spec.config import Config
from vitforge.spec.formats import SUBSETS

RECORD = "record.json"
#: The narrowest accumulators that there are.
ACC_BITS = 16


#: What of a point's options a method is told.
SETTINGS = ("method", "weights", "activations", "stream_bits", "reconstruct")


def _method(options: Mapping[str, Any]) -> Method:
    """Build the method of a point's options; what these leave open is the method's own."""
    name = options["method"]
    given = {key: options[key] for key in ("weights", "activations", "reconstruct") if options[key]}
    streams = getattr(own.kind(name)().settings, "stream", False)
    if options["stream_bits"] and streams:
        given["stream"] = options["stream_bits"]
    return configured(name, with_stream(name, given), ())


def decide(data: Data, options: Mapping[str, Any], config: Config, folder: Path, *,
           fit: bool = False) -> dict[str, Any]:
    """Decide and deploy a method; its record and integer network go into `folder`.

    Parameters
    ----------
    options
        Those of `SETTINGS`, as `explore.point.OPTIONS` explains them.
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
    method = _method(options)
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
            network_file.save(folder / network_file.NAME, found, {"method": method.name})
    kept.clear()
    widths = stored_widths(found)
    return {"attention": found.config.attention, "attention_bits": found.config.attention_bits,
            "weight_mean_bits": widths.weight, "operand_mean_bits": widths.operand,
            "stream_mean_bits": widths.stream, "weight_bytes": weight_bytes(found)}


def network(folder: Path, config: Config) -> Network:
    """Return the integer network in a folder, for a machine with its attention codes."""
    found = network_file.load(folder)
    return dataclasses.replace(found, config=machine(config, found.config.to_dict()))


def fitted(folder: Path, config: Config) -> dict[str, int | str]:
    """Return what the network in a folder needs otherwise than a machine has it.

    The memories of `gen.compiler.fit.fit`; no codes but the network's, and operands without room
    for shifts if none of these is shifted; accumulators as wide as the sums can become.
    """
    found = network(folder, config)
    machine = fit_memories(dataclasses.replace(found, config=_plainest(found)))
    compiled = compile_network(dataclasses.replace(found, config=machine))
    most = max(reach(item, machine) for item in compiled.instructions if item.parameters)
    machine = dataclasses.replace(machine, acc_bits=max(
        machine.sum_bits, 1 + most.bit_length(), ACC_BITS))
    return {name: value for name, value in machine.to_dict().items()
            if name != "name" and value != getattr(config, name)}


def _plainest(found: Network) -> Config:
    """Return a network's configuration with the formats that its codes have, and no other."""
    kinds = {layer.encoding.kind for layer in found.requantizations.values()} | {"uniform"}
    formats = next(item for item in SUBSETS if set(item.split("+")) == kinds)
    config = dataclasses.replace(found.config, formats=formats)
    if config.shifts_operands:
        return config
    return dataclasses.replace(config, operand_bits=config.mantissa_bits)


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
