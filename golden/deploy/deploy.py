# SPDX-License-Identifier: Apache-2.0
"""From a method's record to the integer-only network that the accelerator runs.

`deploy` takes the formats that a record of `golden.ptq` has decided over to the datapath, replaces
those that it does not have by the nearest ones, and finds formats from calibration where a method
leaves a tensor in floating point. What it changed, it says: a `Note` for each tensor.
"""

__all__ = ["Note", "check", "deploy", "load_notes", "save_notes", "suited", "summary"]

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from golden.deploy.activations import (
    Found,
    deploy_gelu,
    deploy_norm,
    deploy_projection,
    deploy_scores,
    deploy_stream,
    deploy_uniform,
)
from golden.deploy.weights import Deployed, deploy_head, deploy_weights, folded_embedding
from golden.float.models import Preprocessing
from golden.float.swin import Swin
from golden.float.vit import Vit, VitSpec
from golden.formats.attention import attend, fit, log2_format
from golden.formats.formats import Format, LogSqrt2, Uniform
from golden.network import build as network_build
from golden.network.build import Matrix, Plan, build
from golden.network.run import Network
from golden.ptq.folding import network as with_parameters
from golden.ptq.formats import TensorFormat
from golden.ptq.record import Record
from golden.ptq.sites import INPUT, layers, sites
from golden.ptq.statistics import Observed, Statistics
from vitforge.base.files import replace
from vitforge.spec import limits
from vitforge.spec.config import Config
from vitforge.spec.formats import ATTENTION

#: By how much the class token may be larger than in calibration.
_HEADROOM = 1.5
_SOFTMAXES = {"shift": "shift", "iexp": "polynomial"}


@dataclass(frozen=True)
class Note:
    """One tensor, or one operation, that is not what the record says.

    Attributes
    ----------
    tensor
        Its name; ``*`` stands for all blocks or layers.
    decided, deployed
        Formats in words.
    why
        What in the datapath asks for it.
    """

    tensor: str
    decided: str
    deployed: str
    why: str


#: What no record says, because float simulation computes it in floating point.
_COMMON = (
    Note("*.bias", "float", "integers of the accumulator's step", "added to the accumulator"),
    Note("*.norm*.weight, *.norm*.bias", "float", "integers, 1/256 of an output step",
         "LayerNorm is computed in integers"),
    Note("*.mlp.act (GeLU)", "float function", "table of 16-bit values",
         "GeLU is computed in integers"),
    Note("pos_embed, cls_token", "float", "8-bit codes with a shift for each channel",
         "they are the constant residual of the first layer"),
    Note("requantization", "exact", "16-bit multipliers and shifts, rounding half up",
         "scales become integers"),
)


def words(item: TensorFormat | Format | None) -> str:
    """Say what a format is."""
    if item is None:
        return "float"
    if isinstance(item, Format):
        return item.words()
    text = f"{item.kind} {item.bits} bits"
    if isinstance(item.scale, tuple):
        text += ", a step for each channel"
    elif item.kind != "log2":
        text += f", step {item.scale:.4g}"
    if isinstance(item.zero_point, tuple):
        text += ", a zero point for each channel"
    elif item.zero_point:
        text += f", zero at {item.zero_point}"
    if item.kind == "shifted":
        text += f", shifts up to {max(item.shift)}"
    return text + (f", m = {item.m}" if item.kind == "two-scale" else "")


def check(spec: VitSpec, config: Config) -> None:
    """Refuse a configuration that can't run the network of a record.

    Raises
    ------
    ConfigError
        The message names the field, and what would be accepted.
    """
    network_build.check_can_run(spec, config)
    limits.check(config, limits.Part.RECORD)


def deploy(model: Vit | Swin, record: Record, config: Config, *,
           statistics: Statistics | None = None, preprocessing: Preprocessing | None = None,
           ) -> tuple[Network, tuple[Note, ...]]:
    """Make the integer network of a record.

    Parameters
    ----------
    model
        The float network that the record was decided on, without the record's parameters.
    config
        Configuration that will run it.
    statistics
        What calibration saw; needed for tensors that the record leaves in floating point.
    preprocessing
        Its mean and deviation are folded into the first layer; None: pixels of 0..1 go in.

    Returns
    -------
    Network
        Takes pixels as bytes.
    tuple of Note
        What is not as the record says.

    Raises
    ------
    ValueError
        If the network is no plain ViT, the record doesn't fit it, statistics are missing, or the
        configuration can't run it; the message names the tensor or the field.
    """
    if not isinstance(model, Vit):
        raise ValueError("only ViT and DeiT have an integer network, not Swin")
    check(model.spec, config)
    known = {site.name for site in sites(model)} | {f"{name}.weight" for name in layers(model)}
    for name in record.formats:
        if name not in known:
            raise ValueError(f"the record's tensor {name!r} is not part of this network")
    changed = with_parameters(model, record.parameters)
    assert isinstance(changed, Vit)
    work = _Deployment(changed, record, config, statistics)
    work.weights(preprocessing)
    work.activations()
    plan = Plan(spec=model.spec, config=config, parameters=work.parameters,
                matrices=work.matrices, formats=work.formats, clip=work.clip,
                rectified=record.activation == "relu")
    return build(plan), (*work.notes, *_COMMON)


class _Deployment:
    """One deployment: formats and notes found so far."""

    def __init__(self, model: Vit, record: Record, config: Config,
                 statistics: Statistics | None) -> None:
        self.spec, self.layers = model.spec, layers(model)
        self.record, self.config, self.statistics = record, config, statistics
        self.parameters = {name: value.detach().double()
                           for name, value in model.named_parameters()}
        self.matrices: dict[str, Matrix] = {}
        self.formats: dict[str, Format] = {}
        self.clip: dict[str, int] = {}
        self.notes: list[Note] = []

    def note(self, name: str, decided: TensorFormat | None, deployed: str, why: str) -> None:
        self.notes.append(Note(name, words(decided), deployed, why))

    def weights(self, preprocessing: Preprocessing | None) -> None:
        """Make the integers of every layer's weights."""
        for name in self.layers:
            full = f"{name}.weight"
            item, weight = self.record.formats.get(full), self.parameters[full]
            bits = self.config.weight_bits
            if item is None:
                raise ValueError(f"the record has no format of {full}, and weights are integers")
            if item.bits > bits:
                raise ValueError(f"weight_bits must be at least {item.bits} for {full}, not {bits}")
            if name == "patch_embed.proj":
                found = self.embedding(weight, item, preprocessing)
            elif name == "head":
                found = deploy_head(weight, item, bits)
            else:
                found = deploy_weights(weight, item, bits)
            self.matrices[name], self.formats[full] = found.matrix, found.format
            if found.why:
                self.note(full, item, words(found.format), found.why)

    def embedding(self, weight: Tensor, item: TensorFormat,
                  preprocessing: Preprocessing | None) -> Deployed:
        """Make the first layer's, for pixels as they come."""
        channels = self.spec.in_channels
        mean = preprocessing.mean if preprocessing else (0.0,) * channels
        std = preprocessing.std if preprocessing else (1.0,) * channels
        found = folded_embedding(weight, item, self.config.weight_bits, std)
        shift = (found.real.reshape(weight.shape).sum((2, 3))
                 * torch.tensor(mean, dtype=torch.float64)).sum(1)
        bias = "patch_embed.proj.bias"
        self.parameters[bias] = self.parameters[bias] - shift
        self.formats[INPUT] = Uniform(scale=1 / 255)
        if (item_in := self.record.formats.get(INPUT)) is not None and \
                (item_in.bits < 8 or preprocessing is not None):
            self.note(INPUT, item_in, "bytes as they are",
                      "the picture is read from memory, and normalised by the first layer")
        return found

    def activations(self) -> None:
        """Find the formats of all activations."""
        self.stream("embedding")
        for index in range(self.spec.depth):
            name = f"blocks.{index}"
            self.take(f"{name}.norm1", deploy_norm(*self.decided(f"{name}.norm1")))
            for part in "qkv":
                full = f"{name}.attn.{part}"
                self.take(full, deploy_projection(*self.decided(full), self.config))
            self.take(f"{name}.attn.scores",
                      deploy_scores(*self.decided(f"{name}.attn.scores"), self.config))
            self.probability(f"{name}.attn.softmax")
            self.take(f"{name}.attn.context", deploy_uniform(
                *self.decided(f"{name}.attn.context")))
            self.stream(f"{name}.residual1")
            self.take(f"{name}.norm2", deploy_norm(*self.decided(f"{name}.norm2")))
            self.take(f"{name}.mlp.act", deploy_gelu(*self.decided(f"{name}.mlp.act"),
                                                     self.config))
            self.stream(f"{name}.residual2")
        self.take("norm", deploy_norm(*self.decided("norm")))
        if self.record.softmax != (exact := _SOFTMAXES[self.config.exponential]):
            self.notes.append(Note("*.attn.softmax (exponential)", self.record.softmax, exact,
                                   "what the configuration's softmax computes"))

    def decided(self, name: str) -> tuple[TensorFormat | None, "_Seen"]:
        return self.record.formats.get(name), _Seen(self.statistics, name)

    def take(self, name: str, found: Found) -> None:
        self.formats[name] = found.format
        if found.clip is not None:
            self.clip[name] = found.clip
        if found.why:
            text = words(found.format) + (f", clipped to {found.clip} bits" if found.clip else "")
            self.note(name, self.record.formats.get(name), text, found.why)

    def stream(self, name: str) -> None:
        item, seen = self.decided(name)
        self.take(name, deploy_stream(item, lambda: self.stream_rows(name, seen), self.spec.dim,
                                      self.config))

    def stream_rows(self, name: str, seen: "_Seen") -> Tensor:
        """Rows of the stream that its format is found with.

        The class token's count as much as all others, and behind the last block alone: only it is
        classified. Where it is the largest in a channel it must not be clipped, in other images
        either, so it is taken to be larger than calibration saw it.
        """
        rows = seen().all_rows
        assert self.statistics is not None
        first = self.statistics.class_token.get(name)
        if first is None:
            return rows
        first = first * _HEADROOM
        if name == f"blocks.{self.spec.depth - 1}.residual2":
            return first
        return torch.cat((rows, first.repeat(-(-len(rows) // len(first)), 1)))

    def probability(self, name: str) -> None:
        """Find the attention's codes, of the configuration's softmax."""
        item = self.record.formats.get(name)
        score = float(self.formats[name.replace("softmax", "scores")].scale)
        wanted, why = _same_kind(item, self.config), "what the configuration's softmax makes"
        try:
            if wanted is None:
                raise ValueError
            _, found = attend(score, wanted, self.config)
            why = "scales of probabilities are on a grid of 2**(1/128)" \
                if float(found.scale) != float(wanted.scale) else ""
        except ValueError:
            wanted = log2_format(self.config.attention_bits) if self.config.attention == "log2" \
                else fit(_Seen(self.statistics, name)().all_rows, self.config)
            try:
                _, found = attend(score, wanted, self.config)
            except ValueError as error:
                raise ValueError(f"{error}, at {name}") from None
        self.formats[name] = found
        if why:
            self.note(name, item, words(found), why)


def _same_kind(item: TensorFormat | None, config: Config) -> Format | None:
    """Return a decided format of probabilities if the configuration's are of its kind."""
    if item is None or (item.kind, item.bits) != (config.attention, config.attention_bits):
        return None
    if item.kind == "log-sqrt2":
        assert isinstance(item.scale, float)
        return LogSqrt2.of_peak(item.scale, item.bits)
    return item.exact()


def suited(config: Config, record: Record) -> Config:
    """Return the configuration with the attention codes that come next to those of a record.

    Powers of the square root of two, and tables, of more bits than a core has become two-scale
    codes of all their bits. A record that leaves attention in floating point changes nothing.
    """
    item = next((item for name, item in record.formats.items() if name.endswith(".attn.softmax")),
                None)
    if item is None:
        return config
    kind = {"tangent": "table", "shifted": "uniform"}.get(item.kind, item.kind)
    if kind != "log2" and item.bits > ATTENTION[kind]:
        kind = "two-scale"
    changes = {"attention": kind, "attention_bits": min(item.bits, ATTENTION[kind])}
    if all(getattr(config, name) == value for name, value in changes.items()):
        return config
    name = f"{config.name}-{kind}{changes['attention_bits']}"
    return dataclasses.replace(config, **(changes | {"name": name}))   # type: ignore[arg-type]


@dataclass(frozen=True)
class _Seen:
    """Gives what calibration saw of a tensor."""

    statistics: Statistics | None
    name: str

    def __call__(self) -> Observed:
        if self.statistics is None:
            raise ValueError(f"{self.name} has no usable format in the record: calibration "
                             "statistics are needed")
        return self.statistics.observed[self.name]


def save_notes(path: str | Path, notes: Sequence[Note]) -> None:
    """Write notes as JSON, a list of objects."""
    text = json.dumps([asdict(note) for note in notes], indent=1) + "\n"
    replace(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def load_notes(path: str | Path) -> tuple[Note, ...]:
    """Read what `save_notes` wrote.

    Raises
    ------
    ValueError
        If the file can't be read or holds something else.
    """
    try:
        return tuple(Note(**item) for item in json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no notes of a deployment ({error})") from None


def summary(notes: Sequence[Note]) -> list[tuple[int, Note]]:
    """Gather the notes of equal tensors of all blocks: how many, and the first with ``*``."""
    groups: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        groups.setdefault((re.sub(r"^blocks\.\d+\.", "blocks.*.", note.tensor), note.why),
                          []).append(note)
    return [(len(group), Note(name, group[0].decided, group[0].deployed, why))
            for (name, why), group in groups.items()]
