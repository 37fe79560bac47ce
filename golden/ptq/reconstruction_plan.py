# SPDX-License-Identifier: Apache-2.0
"""How long, and by which loss, blocks are reconstructed: options of every method, and presets."""

__all__ = ["LOSSES", "PRESETS", "Plan", "ReconstructionSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

LOSSES = ("mse", "perturbation", "fisher")
"""Squared error; weighted by APHQ-ViT's average-perturbation Hessian; FIMA-Q's Fisher matrix."""
STAGES = ("activations", "weights")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done for each unit of a network.

    Attributes
    ----------
    loss
        One of `LOSSES`; of the classifier it is always the divergence of its classes.
    stages
        Of `STAGES`: "activations" trains with quantized activations and real weights, "weights"
        with both quantized. The last must be "weights".
    steps
        Of Adam, in each stage.
    batch
        Images a step, at least 2.
    rate
        Highest learning rate of weights and biases; it falls to 0 by a cosine.
    scale_rate
        The same of the steps' logarithms; 0: steps stay.
    keep
        Share of the activations that are quantized in training (QDrop); 1: all.
    rank
        Of "fisher": gradients that are gathered, and rows of the low-rank part.
    probes
        Images that Hessian and Fisher matrix are of.
    seed
        Draws batches and what QDrop leaves out.
    """

    loss: str = "mse"
    stages: tuple[str, ...] = ("weights",)
    steps: int = 600
    batch: int = 4
    rate: float = 1e-3
    scale_rate: float = 1e-2
    keep: float = 1.0
    rank: int = 2
    probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if not self.stages or self.stages[-1] != "weights" or set(self.stages) - set(STAGES):
            raise ValueError("stages must be weights, or activations+weights, "
                             f"not {'+'.join(self.stages)!r}")
        for name, least in (("steps", 1), ("batch", 2), ("rank", 1), ("probes", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")
        if not 0 < self.rate < 1 or not 0 <= self.scale_rate < 1:
            raise ValueError("rate must lie between 0 and 1, and scale_rate too or be 0, not "
                             f"{self.rate!r} and {self.scale_rate!r}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, not {self.keep!r}")

    def work(self, units: int) -> int:
        """Return the steps of a network of so many units."""
        return units * self.steps * len(self.stages)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # DeiT-Tiny: at most ten minutes of two cores.
    "quick": {},
    # The same: within an hour of two cores.
    "long": {"steps": 3000, "probes": 64, "rank": 3},
    "paper": {"steps": 1000, "batch": 64, "rate": 4e-5, "scale_rate": 0.0,
              "stages": ("activations", "weights")},
}
"""Options by the name of a preset; "paper" is I&S-ViT's official code, and methods have others."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Options of block reconstruction, which every method can have as a last step.

    A value that stays None is the preset's.

    Attributes
    ----------
    reconstruct
        "no", or one of `PRESETS`.
    loss, steps, step_images, rate, scale_rate, keep, rank, probes, step_seed
        As `loss`, `steps`, `batch`, `rate`, `scale_rate`, `keep`, `rank`, `probes` and `seed` of
        `Plan`.
    stages
        With "+" between them.
    """

    #: What the method's paper has, where it differs from the presets.
    PLANS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    reconstruct: str = "no"
    loss: str | None = None
    stages: str | None = None
    steps: int | None = None
    step_images: int | None = None
    rate: float | None = None
    scale_rate: float | None = None
    keep: float | None = None
    rank: int | None = None
    probes: int | None = None
    step_seed: int | None = None

    def __post_init__(self) -> None:
        if self.reconstruct not in ("no", *PRESETS):
            raise ValueError(f"reconstruct must be no, {' or '.join(PRESETS)}, "
                             f"not {self.reconstruct!r}")
        self.plan()

    def plan(self) -> Plan | None:
        """Return what is to be done; None: nothing.

        Raises
        ------
        ValueError
            If an option is out of range.
        """
        given: dict[str, Any] = {
            "loss": self.loss, "steps": self.steps, "batch": self.step_images, "rate": self.rate,
            "scale_rate": self.scale_rate, "keep": self.keep, "rank": self.rank,
            "probes": self.probes, "seed": self.step_seed,
            "stages": None if self.stages is None else tuple(self.stages.split("+"))}
        preset = PRESETS.get(self.reconstruct, {})
        own = {**self.PLANS.get("", {}), **self.PLANS.get(self.reconstruct, {})}
        plan = replace(Plan(), **{**preset, **own, **{
            name: value for name, value in given.items() if value is not None}})
        return None if self.reconstruct == "no" else plan
