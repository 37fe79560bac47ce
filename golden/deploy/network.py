# SPDX-License-Identifier: Apache-2.0
"""From a method's record to the integer-only network that the accelerator runs.

`deploy` takes the formats that a record of `golden.ptq` has decided over to the datapath, replaces
those that it does not have by the nearest ones, and finds formats from calibration where a method
leaves a tensor in floating point. What it changed, it says: a `Note` for each tensor.
"""

__all__ = ["check", "deploy", "suited"]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.deploy.activations import (
    Found,
    deploy_gelu,
    deploy_projection,
    deploy_scores,
    deploy_stream,
    deploy_uniform,
)
from golden.deploy.notes import Note
from golden.deploy.weights import Deployed, deploy_head, deploy_weights, folded_embedding
from golden.float.models import Preprocessing
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.formats.attention import attend, fit, log2_format
from golden.formats.formats import Format, LogSqrt2, Shifted, Uniform
from golden.network import plan as network_plan
from golden.network.integers import Network
from golden.network.ops import (
    BLANK,
    Beside,
    Context,
    Image,
    Logits,
    Merge,
    Norm,
    Operation,
    PairBias,
    Pool,
    Position,
    Product,
    RegionContext,
    RegionScores,
    RegionSoftmax,
    Requantize,
    Scores,
    Softmax,
    Tokens,
    channels,
    chosen,
    for_role,
    made,
    nothing,
    summed,
)
from golden.network.plan import Matrix, Plan, build
from golden.network.topology import Spec, operations
from golden.ptq.folding import network as with_parameters
from golden.ptq.formats import TensorFormat
from golden.ptq.record import Record
from golden.ptq.sites import INPUT, layers, sites
from golden.ptq.statistics import Observed, Statistics
from vitforge.spec import limits
from vitforge.spec.config import Config
from vitforge.spec.formats import ATTENTION

_WHO = "golden.deploy"
#: By how much the class token may be larger than in calibration.
_HEADROOM = 1.5
_SOFTMAXES = {"shift": "shift", "iexp": "polynomial"}


#: What no record says, because float simulation computes it in floating point.
_COMMON = (
    Note("*.bias", "float", "integers of the accumulator's step", "added to the accumulator"),
    Note("*.norm*.weight, *.norm*.bias", "float", "integers, 1/256 of an output step",
         "LayerNorm is computed in integers"),
    Note("*.mlp.act (GeLU)", "float function", "table of 16-bit values",
         "GeLU is computed in integers"),
)
_EMBEDDING = Note("pos_embed, cls_token", "float", "8-bit codes with a shift for each channel",
                  "they are the constant residual of the first layer")
_BIAS = Note("*.attn.relative_position_bias_table", "float", "8-bit codes, one step a layer",
             "they are the constant residual of the scores")
_REQUANTIZATION = Note("requantization", "exact", "16-bit multipliers and shifts, rounding half up",
                       "scales become integers")


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


def check(spec: Spec, config: Config) -> None:
    """Refuse a configuration that can't run the network of a record.

    Raises
    ------
    ConfigError
        The message names the field, and what would be accepted.
    """
    network_plan.check_can_run(spec, config)
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
        If the record doesn't fit the network, statistics are missing, or the configuration can't
        run it; the message names the tensor or the field.
    UnknownOperationError
        If there is nothing for an operation of the network.
    """
    check(model.spec, config)
    known = {site.name for site in sites(model)} | {f"{name}.weight" for name in layers(model)}
    for name in record.formats:
        if name not in known:
            raise ValueError(f"the record's tensor {name!r} is not part of this network")
    work = _Deployment(with_parameters(model, record.parameters), record, config, statistics)
    work.weights(preprocessing)
    work.activations()
    plan = Plan(spec=model.spec, config=config, parameters=work.parameters,
                matrices=work.matrices, formats=work.formats,
                rectified=record.activation == "relu")
    constant = _EMBEDDING if isinstance(model, Vit) else _BIAS
    return build(plan), (*work.notes, *_COMMON, constant, _REQUANTIZATION)


class _Deployment:
    """One deployment: formats and notes found so far."""

    def __init__(self, model: Vit | Swin, record: Record, config: Config,
                 statistics: Statistics | None) -> None:
        self.spec, self.operations = model.spec, operations(model.spec)
        self.made = made(self.operations)
        self.record, self.config, self.statistics = record, config, statistics
        self.parameters = {name: value.detach().double()
                           for name, value in model.named_parameters()}
        self.matrices: dict[str, Matrix] = {}
        self.formats: dict[str, Format] = {}
        self.notes: list[Note] = []
        self.heads = {summed(item, self.made).name for item in self.operations
                      if isinstance(item, Logits)}
        #: Tensors of which some tokens alone are read on, and those.
        self.picked = {item.reads[0]: item.source for item in self.operations
                       if isinstance(item, Tokens) and BLANK not in item.source}
        self.table: dict[type[Operation], Callable[..., None]] = {
            Image: nothing, Position: nothing, PairBias: nothing, Tokens: nothing,
            Merge: self.merge, Beside: nothing, Pool: nothing, Product: nothing,
            Scores: nothing, RegionScores: nothing, Context: nothing, RegionContext: nothing,
            Requantize: self.requantize, Norm: self.norm, Softmax: self.softmax,
            RegionSoftmax: self.softmax, Logits: nothing}
        self.roles: dict[str, Callable[[Requantize], None]] = {
            "stream": self.stream, "gelu": self.gelu, "query": self.projections,
            "scores": self.scores, "context": self.uniform, "pool": self.uniform}

    def note(self, name: str, decided: TensorFormat | None, deployed: str, why: str) -> None:
        self.notes.append(Note(name, words(decided), deployed, why))

    def weights(self, preprocessing: Preprocessing | None) -> None:
        """Make the integers of every layer's weights."""
        for operation in self.operations:
            if not isinstance(operation, Product):
                continue
            name, full = operation.name, f"{operation.name}.weight"
            item, weight = self.record.formats.get(full), self.parameters[full]
            bits = self.config.weight_bits
            if item is None:
                raise ValueError(f"the record has no format of {full}, and weights are integers")
            if item.bits > bits:
                raise ValueError(f"weight_bits must be at least {item.bits} for {full}, not {bits}")
            if isinstance(self.made[operation.reads[0]], Image):
                found = self.embedding(name, weight, item, preprocessing)
            elif name in self.heads:
                found = deploy_head(weight, item)
            else:
                found = deploy_weights(weight, item)
            self.matrices[name], self.formats[full] = found.matrix, found.format
            if found.why:
                self.note(full, item, words(found.format), found.why)

    def embedding(self, name: str, weight: Tensor, item: TensorFormat,
                  preprocessing: Preprocessing | None) -> Deployed:
        """Make the first layer's, for pixels as they come."""
        channels = self.spec.in_channels
        mean = preprocessing.mean if preprocessing else (0.0,) * channels
        std = preprocessing.std if preprocessing else (1.0,) * channels
        found = folded_embedding(weight, item, std)
        shift = (found.real.reshape(weight.shape).sum((2, 3))
                 * torch.tensor(mean, dtype=torch.float64)).sum(1)
        bias = f"{name}.bias"
        self.parameters[bias] = self.parameters[bias] - shift
        self.formats[INPUT] = Uniform(scale=1 / 255)
        if (item_in := self.record.formats.get(INPUT)) is not None and \
                (item_in.bits < 8 or preprocessing is not None):
            self.note(INPUT, item_in, "bytes as they are",
                      "the picture is read from memory, and normalised by the first layer")
        return found

    def activations(self) -> None:
        """Find the formats of all activations."""
        for operation in self.operations:
            chosen(_WHO, self.table, operation)(operation)
        if self.record.softmax != (exact := _SOFTMAXES[self.config.exponential]):
            self.notes.append(Note("*.attn.softmax (exponential)", self.record.softmax, exact,
                                   "what the configuration's softmax computes"))

    def requantize(self, operation: Requantize) -> None:
        for_role(_WHO, self.roles, operation)(operation)

    def norm(self, operation: Norm) -> None:
        (self.stream if operation.roles == ("stream",) else self.uniform)(operation)

    def uniform(self, operation: Operation) -> None:
        name = operation.writes[0]
        self.take(name, deploy_uniform(*self.decided(name)))

    def merge(self, operation: Merge) -> None:
        """Say that the codes of four tokens stay what they are."""
        (read,), (name,) = operation.reads, operation.writes
        found = self.formats[read]
        assert isinstance(found, Shifted)
        self.formats[name] = dataclasses.replace(found, shift=found.shift.repeat(4))
        self.note(name, self.record.formats.get(name), words(self.formats[name]),
                  "patch merging takes the codes of the stream as they are")

    def projections(self, operation: Requantize) -> None:
        for name in operation.writes:
            self.take(name, deploy_projection(*self.decided(name), self.config))

    def scores(self, operation: Requantize) -> None:
        name = operation.writes[0]
        try:
            self.take(name, deploy_scores(*self.decided(name), self.config))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def gelu(self, operation: Requantize) -> None:
        name = operation.writes[0]
        self.take(name, deploy_gelu(*self.decided(name), self.config))

    def stream(self, operation: Operation) -> None:
        name = operation.writes[0]
        item, seen = self.decided(name)
        self.take(name, deploy_stream(item, lambda: self.stream_rows(name, seen),
                                      channels(name, self.made), self.config))

    def decided(self, name: str) -> tuple[TensorFormat | None, "_Seen"]:
        return self.record.formats.get(name), _Seen(self.statistics, name)

    def take(self, name: str, found: Found) -> None:
        self.formats[name] = found.format
        if found.why:
            self.note(name, self.record.formats.get(name), words(found.format), found.why)

    def stream_rows(self, name: str, seen: "_Seen") -> Tensor:
        """Rows of the stream that its format is found with.

        The class token's count as much as all others, and where it is read on alone, behind the
        last block, no others do: only it is classified. Where it is the largest in a channel it
        must not be clipped, in other images either, so it is taken to be larger than calibration
        saw it.
        """
        rows = seen().all_rows
        assert self.statistics is not None
        first = self.statistics.class_token.get(name)
        if first is None:
            return rows
        first = first * _HEADROOM
        if self.picked.get(name) == (0,):
            return first
        return torch.cat((rows, first.repeat(-(-len(rows) // len(first)), 1)))

    def softmax(self, operation: Softmax) -> None:
        """Find the attention's codes, of the configuration's softmax."""
        name = operation.writes[0]
        item = self.record.formats.get(name)
        score = float(self.formats[operation.reads[0]].scale)
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
