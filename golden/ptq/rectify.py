# SPDX-License-Identifier: Apache-2.0
"""MLPs with ReLU for GELU, trained to give what they gave: APHQ-ViT's MLP reconstruction.

From the paper's section 3.3 and the official code, ``mlp_recon.py``: both layers of an MLP are
trained on the float network's inputs, on its squared error weighted by the block's loss, plus
twice that of the same MLP with hidden values clamped to the `SHARE` quantile of the positive ones
after GELU: so their range gets narrow. Each MLP is trained for itself.

On the datapath ReLU needs nothing of its own: it is the first layer's ordinary result in unsigned
codes whose zero point is 0, which saturate there.
"""

__all__ = ["rectified"]

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.data.parallel import one_thread
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.folding import activated
from golden.ptq.losses import Loss, View
from golden.ptq.reconstruction import Trained, make_loss, through
from golden.ptq.reconstruction_plan import Plan
from golden.ptq.units import Unit, units

SHARE = 0.99
CLAMPED = 2.0
"""Weight of the error with clamped values: the paper's alpha."""


def _positive_quantile(x: Tensor) -> float:
    """Return the `SHARE` quantile of the positive values, as the official code ranks them."""
    ascending = x[x > 0].sort().values
    place = max(int(torch.tensor(len(ascending) * SHARE).ceil()) - 1, 0)
    return float(ascending[place]) if len(ascending) else 1.0


class _Mlp:
    """The training of one MLP."""

    def __init__(self, mlp: nn.Module, top: float, loss: Loss) -> None:
        self.mlp, self.top, self.loss = mlp, top, loss

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        fc1, fc2 = self.mlp.get_submodule("fc1"), self.mlp.get_submodule("fc2")
        hidden = functional.relu(fc1(x))
        clamped = hidden.clamp_max(self.top)
        return self.loss(fc2(hidden), target) + CLAMPED * self.loss(fc2(clamped), target)


def _halves(pool: ThreadPoolExecutor, train: _Mlp, parts: list[tuple[Tensor, Tensor]],
            values: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of a batch, of two halves whatever the number of cores."""
    def part(item: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return torch.autograd.grad(train(*item), values)

    one, other = pool.map(part, parts)
    share = len(parts[0][0]) / sum(len(x) for x, _ in parts)
    return [torch.lerp(b, a, share) for a, b in zip(one, other, strict=True)]


def _seen(block: nn.Module, unit: Unit, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return its second norm's output, its residual, its output, and GELU's values of a few."""
    found: dict[str, list[Tensor]] = {"norm2": [], "residual1": [], "mlp.act": []}

    def keep(name: str) -> Callable[[object, object, Tensor], None]:
        def see(_module: object, _inputs: object, out: Tensor) -> None:
            if name != "mlp.act" or len(found[name]) < 2:
                found[name].append(out.detach())
        return see

    handles = [block.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    try:
        out = through(unit, x, 1)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(found["norm2"]), torch.cat(found["residual1"]), out, \
        torch.cat(found["mlp.act"])


def rectified(model: Vit | Swin, images: Tensor, plan: Plan, *, threads: int = 1,
              load: Callable[[str], Trained | None] = lambda unit: None,
              save: Callable[[str, Trained], object] = lambda unit, found: None,
              advance: Callable[[int], object] = lambda steps: None) -> Vit | Swin:
    """Copy a float network with ReLU in its MLPs, which are trained to make up for it.

    Parameters and options as those of `golden.ptq.reconstruction.reconstruct`.
    """
    source = copy.deepcopy(model).eval().requires_grad_(False)
    found = copy.deepcopy(activated(source, "relu"))
    chain = units(source)
    x = images
    with one_thread(), ThreadPoolExecutor(
            max(1, min(2, threads)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, unit in enumerate(chain[:-1]):
            if "blocks" not in unit.name:
                x = through(unit, x, threads)
                continue
            name = f"{unit.name}.mlp"
            mlp = found.get_submodule(name)
            known = load(name)
            if known is None:
                norm, residual, out, hidden = _seen(source.get_submodule(unit.name), unit, x)

                def rest(y: Tensor, after: tuple[Unit, ...] = chain[number + 1:]) -> Tensor:
                    for following in after:
                        y = following.run(y)
                    return y

                known = _train(mlp, plan, number, (norm, out - residual, residual), hidden, rest,
                               pool, advance)
                save(name, known)
                x = out
            else:
                advance(plan.steps)
                x = through(unit, x, threads)
            for key, value in known.tensors.items():
                mlp.get_parameter(key).data = value.clone()
    return found


def _train(mlp: nn.Module, plan: Plan, number: int, seen: tuple[Tensor, Tensor, Tensor],
           hidden: Tensor, rest: Callable[[Tensor], Tensor], pool: ThreadPoolExecutor,
           advance: Callable[[int], object]) -> Trained:
    """Train one MLP; it keeps what it had if its error would be larger."""
    inputs, targets, residual = seen
    loss, probes = make_loss(plan), plan.probes

    def outputs() -> Tensor:
        with torch.no_grad():
            return residual[:probes] + mlp(inputs[:probes])

    loss.look(View(residual[:probes] + targets[:probes], outputs, rest))
    train = _Mlp(mlp, _positive_quantile(hidden), loss)
    values = list(mlp.parameters())
    best = [value.detach().clone() for value in values]

    def judged() -> float:
        with torch.no_grad():
            return float(train(inputs[:probes], targets[:probes]))

    before = judged()
    for value in values:
        value.requires_grad_(True)
    adam = torch.optim.Adam(values, lr=plan.rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, plan.steps)
    draw = torch.Generator().manual_seed(plan.seed * 1_000_003 + number)
    for _ in range(plan.steps):
        index = torch.randperm(len(inputs), generator=draw)[:plan.batch]
        gradients = _halves(pool, train, [(inputs[part], targets[part])
                                          for part in index.chunk(2)], values)
        for value, gradient in zip(values, gradients, strict=True):
            value.grad = gradient
        adam.step()
        cosine.step()
        advance(1)
    for value in values:
        value.requires_grad_(False)
    after = judged()
    if not after <= before:
        for value, kept in zip(values, best, strict=True):
            value.data = kept
    return Trained({name: value.detach().clone() for name, value in mlp.named_parameters()}, {},
                   before, min(before, after) if after == after else before)
