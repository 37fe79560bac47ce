# SPDX-License-Identifier: Apache-2.0
"""A network on a configuration: its cycles, bytes, energy, and what it classifies rightly."""

__all__ = ["Workload", "accuracy", "workload"]

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explore.energy import counts, energy
from explore.tally import Tally
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.model import quantized
from gen.compiler.options import MNIST
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.machine.cycles import Prediction, predict
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS

#: Images that are classified at a time.
BATCH = 50


@dataclass(frozen=True)
class Workload:
    """A compiled network: its useful multiplications, and the program."""

    macs: int
    compiled: Compiled


@functools.lru_cache(maxsize=1)
def workload(name: str, config: Config, weights: int | None,
             widths: tuple[tuple[str, int], ...] = (), *, activations: int = 0,
             gelu: str = "") -> Workload:
    """Compile a network.

    Cycles and bytes depend on shapes and widths alone, so networks without a checkpoint of their
    own have random parameters.

    Parameters
    ----------
    weights, widths
        Bits of all layers, and of single ones, by name; None is the configuration's.
    activations
        Bits of uniform codes; 0 is 8.
    gelu
        Codes of GeLU's result; empty is the first of those that the configuration has.

    Raises
    ------
    ValueError
        If the configuration can't run it; the message says what is missing.
    """
    if widths:
        if name != MNIST:
            raise ValueError(f"widths of single layers are for {MNIST} only, not {name}")
        sample = mnist.sample().calibration.images
        made = calibrate(checkpoint.load(WEIGHTS), sample, config, dict(widths))
    else:
        made = quantized(name, config, seed=None if name == MNIST else 1, weight_bits=weights,
                         gelu=gelu or None, activation_bits=activations or CODE_BITS)
    return Workload(made.products, compile_network(made))


@functools.lru_cache(maxsize=1)
def predicted(work: Workload) -> Prediction:
    """Run the exact model."""
    return predict(work.compiled.program, work.compiled.config)


def cycles(work: Workload) -> dict[str, Any]:
    """Return cycles of one image from start to done, and the bytes that pass the bus, exactly.

    The one place that knows where the cycles come from: the model that the whole accelerator's
    regression compares with the generated Verilog, to the cycle.
    """
    config, compiled = work.compiled.config, work.compiled
    found = predicted(work)
    return {"cycles": found.cycles, "macs": work.macs,
            "utilisation": work.macs / (found.cycles * config.rows * config.cols),
            "bytes": found.read_bytes + found.written_bytes,
            "program_bytes": len(compiled.program), "passes": len(compiled.steps),
            "weight_wait": found.weight_wait, "drain_wait": found.drain_wait,
            "memory_wait": found.memory_wait,
            **{f"{bank}_words_used": words for bank, words in compiled.needed.items()}}


def estimate(work: Workload) -> dict[str, float]:
    """Return the energy of one image, in microjoules; see `explore.energy`."""
    found = predicted(work)
    memory = found.read_bytes + found.written_bytes
    return energy(counts(work.compiled, memory), work.compiled.config)


def layers(config: Config) -> list[str]:
    """Return the names of the digits' layers that have weights of their own, but for the head.

    The head's are few, and its sums are the logits.
    """
    compiled = workload(MNIST, config, None).compiled
    names = [step.layer for step in compiled.steps if step.weights is not None]
    return [name for name in dict.fromkeys(names) if name != "head"]


def narrowed(config: Config, widths: Mapping[str, int], images: int) -> dict[str, Any]:
    """Return ``error`` of the logits, squared and relative, and the hardware's cost.

    Parameters
    ----------
    widths
        Of the layers that are narrowed.
    images
        Calibration images that are classified: the test images stay unseen.
    """
    model = checkpoint.load(WEIGHTS)
    codes = mnist.sample().calibration.images
    made = calibrate(model, codes, config, dict(widths) or None)
    real = _logits(model, codes[:images]).double()
    whole = inference.run(made, codes[:images]).double() * made.logit_scale
    work = Workload(made.products, compile_network(made))
    return {"error": float((whole - real).square().mean() / real.square().mean()),
            **{name: value for name, value in cycles(work).items() if name in ("bytes", "cycles")}}


def digit(config: Config) -> tuple[Network, Tensor]:
    """Return the digits' network and one image of the sample."""
    sample = mnist.sample()
    made = calibrate(checkpoint.load(WEIGHTS), sample.calibration.images, config)
    return made, sample.test.images[:1]


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(mnist.pixels(part)) for part in images.split(BATCH)])


def accuracy(config: Config, *, weights: int | None = None,
             widths: Mapping[str, int] | None = None, stream: str = "ptf",
             gelu_codes: str = "two-scale", activations: int = 0) -> dict[str, Any]:
    """Classify the shipped MNIST sample with the project's network, in integers.

    The arguments are those of `golden.network.calibrate.calibrate`; `gelu_codes` is its `gelu`, and
    of `activations` 0 is 8 bits.

    Returns
    -------
    dict
        `explore.tally.Tally.result`.

    Raises
    ------
    ValueError
        If the configuration can't run the network.
    """
    sample, model = mnist.sample(), checkpoint.load(WEIGHTS)
    made = calibrate(model, sample.calibration.images, config,
                     dict(widths) if widths else weights, stream=stream, gelu=gelu_codes,
                     activation_bits=activations or CODE_BITS)
    tally = Tally()
    for images, labels in zip(sample.test.images.split(BATCH), sample.test.labels.split(BATCH),
                              strict=True):
        tally.add(_logits(model, images), inference.run(made, images).double() * made.logit_scale,
                  labels)
    return tally.result()


def of(network: Network) -> Workload:
    """Compile a network that is there already.

    Raises
    ------
    ValueError
        If its configuration can't run it; the message says what is missing.
    """
    return Workload(network.products, compile_network(network))
