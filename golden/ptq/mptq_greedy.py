# SPDX-License-Identifier: Apache-2.0
"""Greedy MP of MPTQ-ViT: bit by bit from layer to layer, to a target average. A reconstruction.

MPTQ-ViT's abstract says that widths are given to layers greedily, considering both performance and
compressibility. Reconstructed is how:

- a `Unit` is a layer's weights and the activations it reads, or the two operands of an attention
  product; all of it has one width (or, not `joint`, weights and activations are units apart);
- performance is the Kullback-Leibler divergence of the float network's classes from the quantized
  one's, on calibration images. Its rise is measured with one unit narrower and all others at the
  widths reached, in a few rounds; within a round, rises are taken to add up;
- compressibility is the number of bits saved: of weights, and of activations of one image;
- each step lowers that unit whose rise is the smallest for a saved bit, to any lower width.

The residual stream, the scores and the image keep their widths: no matrix product reads the first
two, and the third is the user's.
"""

__all__ = ["Menu", "Unit", "Widths", "allocate", "average_bits", "elements", "mixed",
           "units"]

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from golden.float import swin, vit
from golden.float.swin import PatchMerging, Swin
from golden.float.vit import Vit
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.sites import INPUT, Site, layers, sites, source
from golden.ptq.statistics import observed_sites

Widths = dict[str, int]
"""Bits by unit name."""

Menu = Mapping[str, Mapping[int, Mapping[str, TensorFormat]]]
"""By unit name and width: the formats of the unit's tensors."""

_OPERANDS = {"norm", "query", "key", "value", "attention", "context", "gelu", "pool"}


@dataclass(frozen=True)
class Unit:
    """Tensors whose width is one decision: names of sites and of weight parameters."""

    name: str
    tensors: tuple[str, ...]


def units(model: Vit | Swin, joint: bool = True) -> tuple[Unit, ...]:
    """Return every unit, by the order of the layers; `joint` as in the module's text."""
    roles = {site.name: site.role for site in sites(model)}
    found: dict[str, list[str]] = {}
    for layer in layers(model):
        parent = layer.rpartition(".")[0]
        if layer.endswith(".proj") and f"{parent}.softmax" in roles:
            found[f"{parent}.scores"] = [f"{parent}.q", f"{parent}.k"]
            found[f"{parent}.context"] = [f"{parent}.softmax", f"{parent}.v"]
        found[layer] = [] if source(layer) == INPUT else [source(layer)]
        if layer == "head.fc":       # Swin's last norm is read by the mean, not by a layer
            found[layer].append("norm")
        weight = f"{layer}.weight"
        if joint:
            found[layer].append(weight)
        else:
            found[weight] = [weight]
    return tuple(Unit(name, tuple(tensors)) for name, tensors in found.items() if tensors)


def elements(model: Vit | Swin, images: Tensor) -> dict[str, int]:
    """Return how many values a weight, or an operand of one image, has, by tensor name."""
    parameters = dict(model.named_parameters())
    found = {f"{name}.weight": parameters[f"{name}.weight"].numel() for name in layers(model)}

    def see(name: str, value: Tensor) -> None:
        # Of the final norm a classifier of the class token reads one row.
        one_row = name == "norm" and isinstance(model, Vit)
        found[name] = value.shape[-1] if one_row else value.numel()

    wanted = [site for site in sites(model) if site.role in _OPERANDS]
    with observed_sites(model, wanted, see), torch.inference_mode():
        model(images[:1])
    return found


def average_bits(formats: Mapping[str, TensorFormat], sizes: Mapping[str, int]) -> float:
    """Mean width of the values of all tensors that have a format and a size."""
    counted = {name: sizes[name] for name in formats if name in sizes}
    return sum(formats[name].bits * size for name, size in counted.items()) / sum(counted.values())


class _Judge:
    """Divergence of a quantized network from the float one, for formats that change little.

    Blocks in front of the first changed tensor are not computed again: their results at the common
    formats are kept.
    """

    def __init__(self, model: Vit | Swin, images: Sequence[Tensor],
                 formats: Mapping[str, TensorFormat]) -> None:
        self.float = dict(model.named_parameters())
        self.model = copy.deepcopy(model)
        self.parameters = dict(self.model.named_parameters())
        self.sites: tuple[Site, ...] = sites(model)
        self.formats: dict[str, TensorFormat] = {}
        self.blocks = [(name, module) for name, module in self.model.named_modules()
                       if isinstance(module, vit.Block | swin.Block | PatchMerging)]
        with torch.inference_mode():
            self.wanted = [model(batch).log_softmax(1) for batch in images]
            if INPUT in formats:
                images = [simulate(batch, formats[INPUT]) for batch in images]
        self.images = images
        self.count = sum(map(len, images))
        self.kept: list[list[Tensor]] = []
        self.adopt({name: item for name, item in formats.items() if name != INPUT})

    def adopt(self, formats: Mapping[str, TensorFormat]) -> None:
        """Make these formats the common ones."""
        self._set(formats)
        self.kept = [[] for _ in self.blocks]
        handles = [module.register_forward_hook(
            lambda _module, _inputs, out, place=place: place.append(out))
            for (_, module), place in zip(self.blocks, self.kept, strict=True)]
        self.least = self._divergence(0)
        for handle in handles:
            handle.remove()

    def rise(self, formats: Mapping[str, TensorFormat]) -> float:
        """How much the divergence grows if these tensors have these formats."""
        before = {name: self.formats[name] for name in formats}
        self._set(formats)
        found = self._divergence(min(self._place(name) for name in formats)) - self.least
        self._set(before)
        return found

    def _place(self, tensor: str) -> int:
        """Return the index of the first block that a tensor's format changes."""
        for index, (name, _) in enumerate(self.blocks):
            if tensor.startswith(f"{name}."):
                return index
        return 0 if tensor.startswith("patch_embed.") else len(self.blocks)

    def _set(self, formats: Mapping[str, TensorFormat]) -> None:
        self.formats |= formats
        for name, item in formats.items():
            if name in self.parameters:
                self.parameters[name].data = simulate(self.float[name].data, item)

    def _divergence(self, first: int) -> float:
        found = [site for site in self.sites if site.name in self.formats]
        total = 0.0
        with observed_sites(self.model, found, self._quantize), torch.inference_mode():
            for index, (batch, wanted) in enumerate(zip(self.images, self.wanted, strict=True)):
                with self._skipped(first, index):
                    got = self.model(batch).log_softmax(1)
                total += float((wanted.exp() * (wanted - got)).double().sum())
        return total / self.count

    def _quantize(self, name: str, value: Tensor) -> Tensor:
        return simulate(value, self.formats[name])

    @contextmanager
    def _skipped(self, first: int, batch: int) -> Iterator[None]:
        """Let the blocks before `first` give what they gave, without computing it."""
        modules: list[tuple[nn.Module, Tensor]] = [
            (module, place[batch]) for (_, module), place
            in zip(self.blocks[:first], self.kept, strict=False)]
        for module, out in modules:
            module.forward = lambda _x, out=out: out   # type: ignore[method-assign]
        try:
            yield
        finally:
            for module, _ in modules:
                del module.forward   # the class's own is visible again


def allocate(model: Vit | Swin, images: Sequence[Tensor], found: Sequence[Unit], menu: Menu,
             fixed: Mapping[str, TensorFormat], target: float, rounds: int = 1,
             advance: Callable[[int], object] = lambda done: None) -> Widths:
    """Lower widths until the mean over all values is at most `target`.

    Parameters
    ----------
    images
        Network input, batches ``[B, channels, H, W]``.
    found
        The units; each starts at its largest width in `menu`.
    menu
        Formats of each unit at each width it may have.
    fixed
        Formats of all other tensors.
    target
        In bits.
    rounds
        The way to the target is walked in as many equal parts, with rises measured anew for each.
    advance
        Is told how many rises are measured more; in each round at most as many as there are lower
        widths in the menu.

    Raises
    ------
    ValueError
        If the narrowest widths are wider than the target.
    """
    sizes = elements(model, images[0])
    widths: Widths = {unit.name: max(menu[unit.name]) for unit in found}

    def formats(chosen: Widths) -> dict[str, TensorFormat]:
        return {name: item for unit in found
                for name, item in menu[unit.name][chosen[unit.name]].items()}

    def weigh(unit: str, bits: int) -> int:
        return sum(sizes[name] * item.bits for name, item in menu[unit][bits].items())

    least = average_bits(formats({unit.name: min(menu[unit.name]) for unit in found}), sizes)
    if least > target:
        raise ValueError(f"target must be at least {least:.4g} bits, not {target}")
    start = average_bits(formats(widths), sizes)
    judge = _Judge(model, images, {**fixed, **formats(widths)})
    for part in range(1, rounds + 1):
        goal = target if part == rounds else start + (target - start) * part / rounds
        if average_bits(formats(widths), sizes) <= goal:
            continue
        if part > 1:
            judge.adopt(formats(widths))
        rises: dict[str, dict[int, float]] = {}
        for unit in found:
            here = widths[unit.name]
            rises[unit.name] = {here: 0.0}
            for bits in menu[unit.name]:
                if bits < here:
                    rises[unit.name][bits] = judge.rise(menu[unit.name][bits])
                    advance(1)
        while average_bits(formats(widths), sizes) > goal:
            _, name, bits = min(
                ((rise - rises[name][here]) / (weigh(name, here) - weigh(name, bits)), name, bits)
                for name, here in widths.items()
                for bits, rise in rises[name].items() if bits < here)
            widths[name] = bits
    return widths


def mixed(menu: Menu, widths: Widths) -> dict[str, TensorFormat]:
    """Return the formats of the chosen widths."""
    return {name: item for unit, bits in widths.items()
            for name, item in menu[unit][bits].items()}
