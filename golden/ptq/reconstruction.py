# SPDX-License-Identifier: Apache-2.0
"""Block reconstruction: a quantized network's units are trained one after the other.

Each learns to give what the float network's unit gives, from what the quantized network's units
before it give (BRECQ, Li et al., arXiv 2102.05426, section 3.2; for vision transformers I&S-ViT,
arXiv 2311.10126, section 3.3). Adam changes weights and biases of its layers, and the logarithms of
the steps of its uniform formats; LayerNorm, zero points and all other formats stay. Labels are not
needed. Weights end on their grid, so that a record says exactly what was trained.

Differences from the papers' codes: weights move through straight-through rounding, where FIMA-Q and
APHQ-ViT learn to round up or down (AdaRound) and keep biases; the embedding and the classifier are
trained too, as in these two.
"""

__all__ = ["Trained", "make_loss", "memory", "reconstruct", "through"]

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from golden.data.parallel import one_thread, ordered
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.folding import activated, network
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.losses import Fisher, Loss, Perturbation, Squared, View, divergence
from golden.ptq.reconstruction_plan import Plan
from golden.ptq.record import Record
from golden.ptq.sites import INPUT, layers, sites
from golden.ptq.straight import DRAWS, StraightActivation, StraightWeight
from golden.ptq.units import HEAD, Unit, units

#: Images that go through a unit at a time where nothing is trained.
_BATCH = 16
#: A unit is looked at so often while it is trained, and its best weights are kept.
_CHECKS = 4
#: Images that say which weights are the best.
_JUDGES = 32


@dataclass(frozen=True, eq=False)
class Trained:
    """One unit's result.

    Attributes
    ----------
    tensors
        Weights on their grid, and biases, by parameter name.
    formats
        Of its sites and weights, by name.
    before, after
        Its loss on some images.
    note
        What went wrong, or nothing.
    """

    tensors: Mapping[str, Tensor]
    formats: Mapping[str, TensorFormat]
    before: float
    after: float
    note: str = ""


class _Straight:
    """A network that can be trained through its quantizers, by units."""

    def __init__(self, model: Vit | Swin, record: Record) -> None:
        # A copy, whose parameters are trained in place: not the record's own tensors.
        self.net = copy.deepcopy(activated(network(model, record.parameters),
                                           record.activation)).eval().requires_grad_(False)
        self.record = record
        self.input = record.formats.get(INPUT)
        self.activations: dict[str, StraightActivation] = {}
        self.weights: dict[str, StraightWeight] = {}
        self.modules = dict(self.net.named_modules())
        self.layers = layers(self.net)
        roles = {site.name: site.role for site in sites(self.net)}
        for name, item in record.formats.items():
            if name not in roles or name == INPUT:
                continue
            lis = roles[name] == "attention" and record.softmax != "float"
            scores = next((record.formats[f"{name.rpartition('.')[0]}.{tap}"]
                           for tap in ("scores", "biased")
                           if f"{name.rpartition('.')[0]}.{tap}" in record.formats), None)
            quantizer = StraightActivation(item, scores if lis else None, record.softmax)
            self.activations[name] = quantizer
            self.modules[name].register_forward_hook(quantizer.hook)
        self.units = units(self.net)

    def weigh(self, unit: Unit) -> None:
        """Quantize the weights of a unit from now on."""
        for name in self.layers:
            item = self.record.formats.get(f"{name}.weight")
            if unit.owns(name) and item is not None and name not in self.weights:
                layer = self.modules[name]
                weight = layer.get_parameter("weight")
                self.weights[name] = StraightWeight(item, weight)
                parametrize.register_parametrization(layer, "weight", self.weights[name],
                                                     unsafe=True)

    def trainable(self, unit: Unit, plan: Plan) -> list[dict[str, object]]:
        """Parameter groups of a unit, for Adam."""
        owned = [self.modules[name] for name in self.layers if unit.owns(name)]
        real = [value for layer in owned for name, value in layer.named_parameters()
                if not name.endswith(".gain")]
        gains = [item.gain for name, item in self.activations.items()
                 if unit.owns(name) and item.plain]
        gains += [item.gain for name, item in self.weights.items()
                  if unit.owns(name) and item.uniform]
        groups: list[dict[str, object]] = [{"params": real, "lr": plan.rate}]
        if plan.scale_rate:
            groups.append({"params": gains, "lr": plan.scale_rate})
        for group in groups:
            for value in group["params"]:  # type: ignore[attr-defined]
                value.requires_grad_(True)
        return groups

    def keep(self, unit: Unit, share: float) -> None:
        for name, item in self.activations.items():
            if unit.owns(name):
                item.keep = share

    def take(self, unit: Unit, found: Trained) -> None:
        """Put a unit's result in place; its quantizers then have nothing to change in weights."""
        for name, layer in ((n, self.modules[n]) for n in self.layers if unit.owns(n)):
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in found.tensors:
                    layer.get_parameter(kind).data = found.tensors[f"{name}.{kind}"].clone()
            self.weights.pop(name, None)
        for name, quantizer in self.activations.items():
            if unit.owns(name):
                quantizer.item = found.formats[name]
                quantizer.gain = nn.Parameter(torch.zeros(()), requires_grad=False)
                quantizer.keep = 1.0

    def result(self, unit: Unit, before: float, after: float, note: str) -> Trained:
        """Read off what a unit has become."""
        tensors: dict[str, Tensor] = {}
        formats: dict[str, TensorFormat] = {}
        for name in (name for name in self.layers if unit.owns(name)):
            layer = self.modules[name]
            weight: Tensor = layer.weight.detach().clone()  # type: ignore[operator,union-attr]
            if name in self.weights:
                formats[f"{name}.weight"] = item = self.weights[name].learnt()
                weight = simulate(weight, item)
            tensors[f"{name}.weight"] = weight
            if layer.bias is not None:
                tensors[f"{name}.bias"] = layer.bias.detach().clone()  # type: ignore[operator]
        formats |= {name: item.learnt() for name, item in self.activations.items()
                    if unit.owns(name)}
        return Trained(tensors, formats, before, after, note)


def through(unit: Unit, x: Tensor, threads: int) -> Tensor:
    """Output of a unit for all images."""
    def run(part: Tensor) -> Tensor:
        with torch.no_grad():
            return unit.run(part)

    return torch.cat(list(ordered(run, x.split(_BATCH), threads)))


def make_loss(plan: Plan) -> Loss:
    """Make the loss that a plan names, for one unit."""
    return {"mse": Squared, "perturbation": Perturbation,
            "fisher": lambda: Fisher(plan.rank)}[plan.loss]()  # type: ignore[operator,no-any-return]


class _Training:
    """The training of one unit."""

    def __init__(self, net: _Straight, unit: Unit, rest: Callable[[Tensor], Tensor], plan: Plan,
                 inputs: tuple[Tensor, Tensor], targets: Tensor, pool: ThreadPoolExecutor,
                 advance: Callable[[int], object]) -> None:
        self.net, self.unit, self.plan, self.pool = net, unit, plan, pool
        self.quantized, self.real = inputs
        self.targets, self.advance = targets, advance
        self.rest = rest
        self.number = net.units.index(unit)
        self.loss: Callable[[Tensor, Tensor], Tensor] = divergence

    def look(self, loss: Loss) -> None:
        """Let the loss see the unit as it is."""
        probes = self.plan.probes

        def outputs() -> Tensor:
            return through(self.unit, self.quantized[:probes], 1)

        loss.look(View(self.targets[:probes], outputs, self.rest))

    def judged(self) -> float:
        """Loss of the unit as it is, on the images that judge."""
        self.net.keep(self.unit, 1.0)
        with torch.no_grad():
            return float(self.loss(through(self.unit, self.quantized[:_JUDGES], 1),
                                   self.targets[:_JUDGES]))

    def part(self, index: Tensor, seed: int, values: list[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of half a batch."""
        x = self.quantized[index]
        if self.plan.keep < 1:
            DRAWS.generator = torch.Generator().manual_seed(seed)
            drawn = torch.rand(x.shape, generator=DRAWS.generator) < self.plan.keep
            x = torch.where(drawn, x, self.real[index])
        with torch.enable_grad():
            loss = self.loss(self.unit.run(x), self.targets[index])
            return (loss.detach(), *torch.autograd.grad(loss, values))

    def run(self) -> Trained:
        """Train, stage by stage."""
        notes = []
        before = after = math.nan
        for stage in self.plan.stages:
            if stage == "weights":
                self.net.weigh(self.unit)
            first, after, note = self.stage(stage)
            before = first if math.isnan(before) else before
            notes += [note] if note else []
        return self.net.result(self.unit, before, after, "; ".join(notes))

    def stage(self, stage: str) -> tuple[float, float, str]:
        """Train with what the stage quantizes; the unit ends with its best weights."""
        plan, head = self.plan, self.unit.name == HEAD
        loss = make_loss(plan)
        if not head:
            self.look(loss)
            self.loss = loss
        groups = self.net.trainable(self.unit, plan)
        values: list[Tensor] = [v for g in groups for v in g["params"]]  # type: ignore[attr-defined]
        adam = torch.optim.Adam(groups)   # type: ignore[arg-type]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, plan.steps)
        draw = torch.Generator().manual_seed(
            plan.seed * 1_000_003 + self.number * 2 + (stage == "weights"))
        first = least = self.judged()
        start = best = [value.detach().clone() for value in values]
        note = ""
        checks = {plan.steps * (n + 1) // _CHECKS for n in range(_CHECKS)} - {0}
        looks = {plan.steps * n // loss.looks for n in range(1, loss.looks)} - {0}
        for step in range(plan.steps):
            if step in looks and not head:
                self.net.keep(self.unit, 1.0)
                self.look(loss)
                least = self.judged()
                best = [value.detach().clone() for value in values]
            self.net.keep(self.unit, plan.keep)
            if not self.descend(adam, values, draw):
                note = f"{self.unit.name} diverged at step {step} of {plan.steps}"
                self.advance(plan.steps - step)
                break
            cosine.step()
            self.advance(1)
            if step + 1 in checks and (now := self.judged()) < least:
                least, best = now, [value.detach().clone() for value in values]
        first_again, last = (self.put(values, kept) for kept in (start, best))
        if not last < first_again:   # by the last loss, which may be another than the first
            last = self.put(values, start)
            note = note or f"{self.unit.name} got no better in {plan.steps} steps"
        for value in values:
            value.requires_grad_(False)
        return first, last, note

    def put(self, values: list[Tensor], kept: list[Tensor]) -> float:
        """Take weights back, and return their loss."""
        with torch.no_grad():
            for value, found in zip(values, kept, strict=True):
                value.copy_(found)
        return self.judged()

    def descend(self, adam: torch.optim.Adam, values: list[Tensor], draw: torch.Generator) -> bool:
        """Make one step; False if the loss or a gradient is not finite, and nothing was done."""
        index = torch.randperm(len(self.targets), generator=draw)[:self.plan.batch]
        seeds = torch.randint(1 << 62, (2,), generator=draw).tolist()
        # Always two halves, so that the number of cores decides no bit.
        halves = index.chunk(2)
        one, other = self.pool.map(lambda n: self.part(halves[n], seeds[n], values), range(2))
        share = len(halves[0]) / len(index)
        sums = [torch.lerp(b, a, share) for a, b in zip(one, other, strict=True)]
        if not math.isfinite(sum(float(value.sum()) for value in sums)):
            return False
        for value, gradient in zip(values, sums[1:], strict=True):
            value.grad = gradient
        adam.step()
        return True


def memory(model: Vit | Swin, images: Tensor, plan: Plan) -> int:
    """Bytes that the reconstruction needs, about: outputs of units, and what training keeps.

    For every image there are the quantized network's input and output and the float network's; in
    training some twelve tensors of an MLP's hidden layer, and attention maps, for each image of a
    batch.
    """
    with torch.inference_mode():
        x, largest = images[:1], 0
        for unit in units(model):
            x = unit.run(x)
            largest = max(largest, x.numel())
    return 4 * (len(images) * (images[0].numel() + 5 * largest)
                + plan.batch * 150 * largest)


def reconstruct(model: Vit | Swin, record: Record, images: Tensor, plan: Plan, *, threads: int = 1,
                load: Callable[[str], Trained | None] = lambda unit: None,
                save: Callable[[str, Trained], object] = lambda unit, found: None,
                advance: Callable[[int], object] = lambda steps: None,
                say: Callable[[str], object] = lambda text: None) -> Record:
    """Train the weights of a record so that the network's units give what they should.

    Parameters
    ----------
    model
        The float network, without the record's parameters: what is aimed at.
    record
        Formats, and parameters to begin with.
    images
        Of calibration, ``[N, channels, H, W]``.
    threads
        Up to 2 cores; they change no bit of the result.
    load, save
        Find a unit that an earlier run has finished, and keep one that is finished.
    advance
        Is told steps that are done.
    say
        Is told in a line what the user should know, such as a unit that has diverged.

    Returns
    -------
    Record
        Of the same method, with other parameters, and other steps of uniform formats.
    """
    target = copy.deepcopy(model).eval().requires_grad_(False)
    net = _Straight(model, record)
    floats = units(target)
    formats, parameters = dict(record.formats), dict(record.parameters)
    quantized = images if net.input is None else simulate(images, net.input)
    real = images
    with one_thread(), ThreadPoolExecutor(
            max(1, min(2, threads)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, (unit, exact) in enumerate(zip(net.units, floats, strict=True)):
            targets = through(exact, real, threads)
            found = load(unit.name)
            if found is None:
                def rest(x: Tensor, after: tuple[Unit, ...] = floats[number + 1:]) -> Tensor:
                    for following in after:
                        x = following.run(x)
                    return x

                found = _Training(net, unit, rest, plan, (quantized, real), targets, pool,
                                  advance).run()
                save(unit.name, found)
            else:
                advance(plan.work(1))
            if found.note:
                say(f"reconstruction: {found.note}; it keeps its best weights")
            net.take(unit, found)
            formats |= found.formats
            parameters |= found.tensors
            if unit.name != HEAD:
                quantized, real = through(unit, quantized, threads), targets
    return dataclasses.replace(record, formats=formats, parameters=parameters)
