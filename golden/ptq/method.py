# SPDX-License-Identifier: Apache-2.0
"""What all quantization methods share: three steps, widths, and the float simulation.

1. `Method.observe` runs calibration images through a float network;
2. `Method.decide` makes a `Record` of what was observed;
3. `apply` makes a float-simulated quantized network of the same float network and a record.
"""

__all__ = ["Method", "Settings", "apply", "weight_formats"]

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.folding import activated
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.ranges import channel_weights
from golden.ptq.reconstruction_plan import ReconstructionSettings
from golden.ptq.record import Record, plain_settings
from golden.ptq.sites import CLASSIFIERS, INPUT, layers, sites
from golden.ptq.statistics import Statistics, collect
from golden.ptq.weights import common_weights


@dataclass(frozen=True, kw_only=True)
class Settings(ReconstructionSettings):
    """Options that every method has; widths are 3 to 8 bits.

    Those of `golden.ptq.reconstruction_plan.ReconstructionSettings` too: blocks can be
    reconstructed whatever has decided the formats.

    Attributes
    ----------
    weights
        Bits of a weight.
    activations
        Bits of the operands of matrix products.
    attention
        Bits of the softmax output; None: `activations`.
    stream
        Bits of the residual stream and the scores; 0 leaves both in floating point.
    input
        Bits of the image; 8 in all papers.

    Raises
    ------
    ValueError
        If a width is out of range.
    """

    weights: int = 8
    activations: int = 8
    attention: int | None = None
    stream: int = 8
    input: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weights", "activations", "attention", "stream", "input"):
            value = getattr(self, name)
            if (name, value) in (("attention", None), ("stream", 0)):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 3 <= value <= 8:
                raise ValueError(f"{name} must be 3 to 8 bits, not {value!r}")

    def bits(self, role: str) -> int:
        """Width of a site of this role; 0 for floating point."""
        if role == "attention" and self.attention is not None:
            return self.attention
        return {"input": self.input, "stream": self.stream,
                "scores": self.stream}.get(role, self.activations)


Train = Callable[[Vit | Swin, Tensor], Vit | Swin]
"""Trains MLPs with ReLU."""


def weight_formats(model: Vit | Swin, bits: int,
                   make: Callable[[Tensor, int], TensorFormat] = channel_weights,
                   ) -> dict[str, TensorFormat]:
    """Make formats of all weight matrices, by parameter name; the classifier's have one step."""
    parameters = dict(model.named_parameters())
    return {f"{name}.weight": (common_weights if name in CLASSIFIERS else make)(
                parameters[f"{name}.weight"].detach(), bits)
            for name in layers(model)}


class Method(ABC):
    """A post-training quantization method.

    Attributes
    ----------
    name
        On the command line; `golden.commands.methods` says what it does.
    settings
        Its options, a frozen dataclass.
    """

    name: ClassVar[str]
    settings: Settings

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        """Run calibration images ``[B, channels, H, W]`` through the float network."""
        return collect(model, batches, advance=advance)

    @abstractmethod
    def decide(self, statistics: Statistics) -> Record:
        """Choose the format of every tensor."""

    def prepare(self, model: Vit | Swin, images: Tensor, train: "Train") -> Vit | Swin:
        """Return the network that is to be quantized: another one that computes about the same.

        `images` are those of the reconstruction; `train` gives `golden.ptq.rectify.rectified` with
        everything but these two.
        """
        return model

    @property
    def prepares(self) -> bool:
        """Whether `prepare` does anything."""
        return False

    def decide_visibly(self, statistics: Statistics,
                       bars: Callable[[str, int], Callable[[int], object]]) -> Record:
        """Return `decide`, for methods that take long with progress.

        ``bars(text, total)`` starts a bar and gives the function that moves it on.
        """
        return self.decide(statistics)

    def apply(self, model: Vit | Swin, record: Record) -> Vit | Swin:
        """Return `apply` of the module."""
        return apply(model, record)

    def record(self, formats: dict[str, TensorFormat], **more: Any) -> Record:
        """Make the record of this method and its settings."""
        return Record(method=self.name, settings=plain_settings(self.settings), formats=formats,
                      **more)


def apply(model: Vit | Swin, record: Record) -> Vit | Swin:
    """Copy a float network, with every weight and site that has a format quantized.

    Values are real numbers on the formats' grids (fake quantization). Biases, LayerNorm and GELU
    compute in floating point; so does softmax unless the record has an integer one.

    Raises
    ------
    ValueError
        If the record names a tensor that the network does not have, or of another shape.
    """
    simulated = copy.deepcopy(activated(model, record.activation))
    state = dict(simulated.named_parameters())
    known = {site.name: site for site in sites(simulated)}
    weights = {f"{name}.weight" for name in layers(simulated)}
    for name, value in record.parameters.items():
        if name not in state or state[name].shape != value.shape:
            raise ValueError(f"the record's parameter {name!r} of shape {list(value.shape)} does "
                             "not fit this network")
        state[name].data = value.to(state[name])
    for name, item in record.formats.items():
        if name in weights:
            if isinstance(item.scale, tuple) and item.axis == 0 \
                    and len(item.scale) != len(state[name]):
                raise ValueError(f"the record's format of {name!r} has {len(item.scale)} "
                                 f"channels, not {len(state[name])}")
            state[name].data = simulate(state[name].data, item)
        elif name not in known:
            raise ValueError(f"the record's tensor {name!r} is not part of this network")
    modules = dict(simulated.named_modules())
    for name, item in record.formats.items():
        if name not in known:
            continue
        if known[name].role == "attention" and record.softmax != "float":
            _integer_softmax(simulated, name, item, record)
        elif name == INPUT:
            simulated.register_forward_pre_hook(_Input(item))
        else:
            modules[name].register_forward_hook(_Output(item))
    return simulated.requires_grad_(False)


def _integer_softmax(model: Vit | Swin, name: str, item: TensorFormat, record: Record) -> None:
    parent, _, leaf = name.rpartition(".")
    scores = next((record.formats[f"{parent}.{tap}"] for tap in ("scores", "biased")
                   if f"{parent}.{tap}" in record.formats), None)
    if scores is None or item.kind != "log2":
        raise ValueError(f"an integer softmax needs uniform scores and log2 codes at {name}")
    setattr(model.get_submodule(parent), leaf, LogIntSoftmax(scores, item.bits, record.softmax))


@dataclass(frozen=True)
class _Output:
    """Forward hook that quantizes an output; a class, so that a network can be copied and saved."""

    item: TensorFormat

    def __call__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return simulate(out, self.item)


@dataclass(frozen=True)
class _Input:
    """Forward pre-hook that quantizes the image."""

    item: TensorFormat

    def __call__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return simulate(inputs[0], self.item)
