# SPDX-License-Identifier: Apache-2.0
"""What calibration images leave at every site of a network."""

__all__ = ["Observed", "Statistics", "collect", "observed_sites", "spaced"]

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from golden.data.parallel import ordered
from golden.float.parameters import check_parameters
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.sites import INPUT, ROLES, Site, sites


@dataclass(frozen=True, eq=False)
class Observed:
    """One site over all calibration batches.

    Attributes
    ----------
    low, high
        Least and largest value of each batch, float32 ``[batches]``.
    rows
        Rows of each batch, ``[N, C]`` with C the last dimension: all, or evenly spaced ones. Of no
        batch, if the method has no use for them.
    """

    low: Tensor
    high: Tensor
    rows: tuple[Tensor, ...]

    @property
    def all_rows(self) -> Tensor:
        """Rows of all batches, ``[N, C]``."""
        return torch.cat(self.rows)


@dataclass(frozen=True, eq=False)
class Statistics:
    """A network and what was observed in it, by site name.

    `importance` is the weight of the error of every kept value, of methods that need one.
    `class_token` are that token's rows of the residual stream: one of many, but the only ones that
    the classifier reads, and some of its channels are larger than those of all others.
    """

    model: Vit | Swin
    sites: tuple[Site, ...]
    observed: Mapping[str, Observed]
    importance: Mapping[str, Tensor] = field(default_factory=dict)
    class_token: Mapping[str, Tensor] = field(default_factory=dict)


@contextmanager
def observed_sites(model: Vit | Swin, found: Iterable[Site],
                   see: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``see(name, value)`` for every site; a tensor it returns takes the value's place."""
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda _module, _inputs, output: see(name, output)

    handles = []
    for site in found:
        if site.name == INPUT:
            handles.append(model.register_forward_pre_hook(
                lambda _module, inputs: see(INPUT, inputs[0])))
        else:
            handles.append(modules[site.name].register_forward_hook(hook(site.name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spaced(x: Tensor, most: int) -> Tensor:
    """Return rows ``[N, C]`` of a tensor, evenly spaced so that they hold at most `most` values."""
    rows = x.reshape(-1, x.shape[-1])
    step = max(1, -(-rows.numel() // most))
    return rows[::step].clone()


#: Name of a site, its least and largest value, rows, and those of the class token.
_Seen = tuple[str, Tensor, Tensor, Tensor | None, Tensor | None]


def _with_last(batches: Iterable[Tensor], last: bool) -> Iterator[tuple[Tensor, bool]]:
    """Yield the batches that aren't empty, and whether to keep rows: of all, or of the last."""
    waiting = (batch for batch in batches if len(batch))
    batch = next(waiting, None)
    while batch is not None:
        following = next(waiting, None)
        yield batch, not last or following is None
        batch = following


def collect(model: Vit | Swin, batches: Iterable[Tensor], *, most: int = 1 << 20,
            last: bool = False, kept: Container[str] = ROLES,
            advance: Callable[[int], object] = lambda images: None) -> Statistics:
    """Run the calibration images through a network.

    Parameters
    ----------
    model
        In evaluation mode.
    batches
        Network input ``[B, channels, H, W]``, float32.
    most
        Values of a site that are kept of each batch; ranges are always those of all values.
    last
        Keep rows of the last batch only.
    kept
        Roles of the sites whose rows are kept: new memory takes longer than to compute what is in
        it.
    advance
        Is told how many images are done more.

    Raises
    ------
    ValueError
        If there is no image, an image holds a value that is not finite, all pixels of all images
        are equal, a parameter can't be quantized, or the network makes a value that is not finite
        (the message names where).
    """
    check_parameters(model)
    found = sites(model)
    lows: dict[str, list[Tensor]] = {site.name: [] for site in found}
    highs: dict[str, list[Tensor]] = {site.name: [] for site in found}
    rows: dict[str, list[Tensor]] = {site.name: [] for site in found}
    # A classifier of tokens reads nothing else of the final norm.
    vit, classified = isinstance(model, Vit), getattr(model.spec, "classified", 0)
    first: dict[str, list[Tensor]] = {site.name: [] for site in found
                                      if vit and site.role == "stream"}
    wanted = {site.name for site in found if site.role in kept}
    here = threading.local()   # the batch of this thread

    def see(name: str, value: Tensor) -> None:
        token = value[:, 0].clone() if name in first else None
        value = value[:, :classified] if vit and name == "norm" else value
        rows_wanted = here.keep and name in wanted
        here.seen.append((name, *value.aminmax(), spaced(value, most) if rows_wanted else None,
                          token))

    def run(batch: Tensor, keep: bool) -> tuple[int, list[_Seen]]:
        here.seen, here.keep = [], keep
        with torch.inference_mode():
            model(batch)
        ends = torch.stack([torch.stack((low, high)) for _, low, high, _, _ in here.seen])
        for (name, *_), finite in zip(here.seen, ends.isfinite().all(1).tolist(), strict=True):
            if not finite:
                raise ValueError(f"calibration makes values at {name} that are not finite")
        return len(batch), here.seen

    with observed_sites(model, found, see):
        for images, seen in ordered(lambda item: run(*item), _with_last(batches, last),
                                    torch.get_num_threads()):
            for name, low, high, some, token in seen:
                lows[name].append(low)
                highs[name].append(high)
                if some is not None:
                    rows[name].append(some)
                if token is not None:
                    first[name].append(token)
            advance(images)
    if not lows[INPUT]:
        raise ValueError("calibration must have at least one image")
    if bool(torch.stack(lows[INPUT]).min() == torch.stack(highs[INPUT]).max()):
        raise ValueError("calibration images must not be constant: all their pixels are equal")
    return Statistics(model, found, {
        site.name: Observed(torch.stack(lows[site.name]), torch.stack(highs[site.name]),
                            tuple(rows[site.name])) for site in found},
        class_token={name: torch.cat(values) for name, values in first.items()})
