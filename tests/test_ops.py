# SPDX-License-Identifier: Apache-2.0
"""A network is a list of operations: what it holds, in which order, and who refuses what."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import scalesim
from gen.compiler.compile import compile_network
from golden.commands.report_layers import noise
from golden.deploy.network import deploy
from golden.float import models
from golden.float.swin import SwinSpec
from golden.float.vit import Vit, VitSpec, observe
from golden.network import inference, ops, topology
from golden.network.calibrate import calibrate
from golden.network.fast import Fast
from golden.network.inference import Call, gathered
from golden.network.integers import Network
from golden.network.ops import (
    BLANK,
    OPERATIONS,
    PICTURES,
    Context,
    Image,
    Logits,
    Multiply,
    Norm,
    Operation,
    Position,
    Product,
    Requantize,
    Scores,
    Softmax,
    Tokens,
    UnknownOperationError,
    last_reads,
    made,
    products,
    summed,
)
from golden.network.plan import Matrix, Plan, build
from golden.network.topology import TOPOLOGIES, operations, vit
from golden.network.topology_swin import swin
from golden.ptq import METHODS
from golden.ptq.record import Record
from golden.ptq.sites import ROLES, layers, sites, source
from golden.ptq.statistics import Statistics
from vitforge.spec.config import load

SPEC = VitSpec(image_size=8, patch_size=4, in_channels=2, classes=3, dim=8, depth=1, heads=2,
               mlp_hidden=12)
#: Four patches and a class token: type, name, tensors read, tensors written.
LIST = [
    (Image, "input", "pictures", "input"),
    (Product, "patch_embed.proj", "input", "patch_embed.proj"),
    (Tokens, "tokens", "patch_embed.proj", "tokens"),
    (Position, "position", "", "position"),
    (Requantize, "embedding", "tokens position", "embedding"),
    (Norm, "b.norm1", "embedding", "b.norm1"),
    (Product, "b.attn.qkv", "b.norm1", "b.attn.qkv"),
    (Requantize, "b.attn.qkv", "b.attn.qkv", "b.attn.q b.attn.k b.attn.v"),
    (Scores, "b.attn.scores", "b.attn.q b.attn.k", "b.attn.scores.sums"),
    (Requantize, "b.attn.scores", "b.attn.scores.sums", "b.attn.scores"),
    (Softmax, "b.attn.softmax", "b.attn.scores", "b.attn.softmax"),
    (Context, "b.attn.context", "b.attn.softmax b.attn.v", "b.attn.context.sums"),
    (Requantize, "b.attn.context", "b.attn.context.sums", "b.attn.context"),
    (Product, "b.attn.proj", "b.attn.context", "b.attn.proj"),
    (Requantize, "b.residual1", "b.attn.proj embedding", "b.residual1"),
    (Norm, "b.norm2", "b.residual1", "b.norm2"),
    (Product, "b.mlp.fc1", "b.norm2", "b.mlp.fc1"),
    (Requantize, "b.mlp.fc1", "b.mlp.fc1", "b.mlp.act"),
    (Product, "b.mlp.fc2", "b.mlp.act", "b.mlp.fc2"),
    (Requantize, "b.residual2", "b.mlp.fc2 b.residual1", "b.residual2"),
    (Tokens, "class_token", "b.residual2", "class_token"),
    (Norm, "norm", "class_token", "norm"),
    (Product, "head", "norm", "head"),
    (Logits, "head", "head", "logits"),
]
SPECS = {"tiny": SPEC, "deeper": dataclasses.replace(SPEC, depth=3, heads=4),
         "no blocks would be": dataclasses.replace(SPEC, image_size=4),
         **{name: item.spec for name, item in models.MODELS.items()
            if isinstance(item.spec, VitSpec)}}


def pictures(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 2, 8, 8), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def model() -> Vit:
    return Vit(SPEC).initialize(3).eval()


@pytest.fixture(scope="module")
def whole(model: Vit) -> Network:
    return calibrate(model, pictures(3), load("tiny"))


# The list


def test_the_list_of_a_tiny_network():
    def short(names: tuple[str, ...]) -> str:
        return " ".join(name.replace("blocks.0", "b") for name in names)

    found = operations(SPEC)
    assert [(type(item), short((item.name,)), short(item.reads), short(item.writes))
            for item in found] == LIST
    (first, last) = (item.source for item in found if isinstance(item, Tokens))
    assert first == (BLANK, 0, 1, 2, 3) and last == (0,)
    assert [(item.count, item.rows, item.inner, item.columns) for item in found
            if isinstance(item, Multiply)] == [
        (1, 4, 32, 8), (1, 5, 8, 24), (2, 5, 4, 5), (2, 5, 5, 4), (1, 5, 8, 8), (1, 5, 8, 12),
        (1, 5, 12, 8), (1, 1, 8, 3)]
    # Blocks are alike, each on what the one before has left.
    more = operations(dataclasses.replace(SPEC, depth=2))
    assert len(more) == len(found) + 15
    (second,) = (item for item in more if item.name == "blocks.1.norm1")
    assert second.reads == ("blocks.0.residual2",)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_is_read_was_written_before_and_all_is_read(spec: VitSpec):
    found = operations(spec)
    there = {PICTURES}
    for item in found:
        assert set(item.reads) <= there, item
        assert not set(item.writes) & there, item    # written once
        there |= set(item.writes)
        assert not item.roles or len(item.roles) == len(item.writes)
        assert set(item.roles) <= set(ROLES)
    unread = there - {name for item in found for name in item.reads}
    assert unread == {"logits"} and found[-1].writes == ("logits",)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_memory_is_free_after_the_last_reader(spec: VitSpec):
    found = operations(spec)
    free = last_reads(found)
    assert len(free) == len(found)
    assert sorted(name for names in free for name in names) == sorted(made(found).keys()
                                                                      - {"logits"} | {PICTURES})
    for index, names in enumerate(free):
        assert set(names) <= set(found[index].reads)
        assert not set(names) & {name for item in found[index + 1:] for name in item.reads}


def test_names_are_those_of_the_float_model(model: Vit):
    seen: dict[str, Tensor] = {}
    with observe(model, seen.__setitem__), torch.inference_mode():
        model(pictures(1) / 255)
    found = operations(SPEC)
    named = [name for item in found for name, role in zip(item.writes, item.roles, strict=False)
             if role != "input"]
    assert named == [name for name in seen if name in named] and len(named) == 13
    assert [site.name for site in sites(model)] == ["input", *named]
    weights = {name: item for name, item in model.state_dict().items()
               if name.endswith("weight") and item.ndim > 1}
    products = [item for item in found if isinstance(item, Product)]
    assert [f"{item.name}.weight" for item in products] == list(weights)
    for item in products:
        assert weights[f"{item.name}.weight"].flatten(1).shape == (item.columns, item.inner)
        assert source(item.name) == item.reads[0]
    assert layers(model) == tuple(item.name for item in products)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_products_are_counted_alike(spec: VitSpec):
    found = [item for item in operations(spec) if isinstance(item, Multiply)]
    tokens, dim = spec.tokens, spec.dim
    block = (4 * dim + 2 * tokens + 2 * spec.mlp_hidden) * tokens * dim
    assert products(operations(spec)) == (
        spec.patches * spec.patch_values * dim + spec.depth * block + dim * spec.classes)
    cycles = scalesim.cycles(spec, 8, 8)["weight"]
    assert cycles == sum(item.count * (-(-item.inner // 8) * -(-item.columns // 8)
                                       * (item.rows + 22) - 1) for item in found)


def test_sums_are_found_through_tokens():
    writers = made(operations(SPEC))
    assert summed(writers["embedding"], writers) is writers["patch_embed.proj"]
    assert summed(writers["blocks.0.attn.k"], writers) is writers["blocks.0.attn.qkv"]
    assert summed(writers["logits"], writers) is writers["head"]


def test_rows_are_gathered_with_blanks():
    rows = torch.arange(12).reshape(2, 3, 2)
    assert gathered(rows, (2, BLANK, 0, 2)).tolist() == [
        [[4, 5], [0, 0], [0, 1], [4, 5]], [[10, 11], [0, 0], [6, 7], [10, 11]]]
    assert gathered(rows, (BLANK,), 7).tolist() == [[[7, 7]], [[7, 7]]]
    assert gathered(rows, (1,)).tolist() == [[[2, 3]], [[8, 9]]]
    assert torch.equal(rows, torch.arange(12).reshape(2, 3, 2))


def test_a_blank_row_of_the_stream_is_zero(whole: Network, monkeypatch: pytest.MonkeyPatch):
    def blank(spec: VitSpec) -> tuple[Operation, ...]:
        return tuple(dataclasses.replace(item, source=(BLANK,))
                     if item.name == "class_token" else item for item in vit(spec))

    monkeypatch.setitem(TOPOLOGIES, "vit", blank)
    calls: list[Call] = []
    found = inference.run(whole, pictures(2), calls.append)
    (norm,) = (call for call in calls if call.name == "norm")
    assert not bool(norm.inputs["mantissa"].any()) and whole.stream("class_token").zero_point > 0
    assert torch.equal(found[0], found[1]) and torch.equal(Fast(whole)(pictures(2)), found)


def test_every_call_is_of_an_operation_in_order(whole: Network):
    calls: list[Call] = []
    inference.run(whole, pictures(1), calls.append)
    units = {Product: "systolic", Scores: "systolic", Context: "systolic", Requantize: "requant",
             Norm: "layernorm", Softmax: "softmax"}
    assert [(call.operation, call.unit) for call in calls] == [
        (item, units[type(item)]) for item in whole.operations if type(item) in units]


# Who knows what


def test_every_type_is_in_the_list_of_types_and_occurs():
    types = {item for item in vars(ops).values() if isinstance(item, type)
             and issubclass(item, Operation)} - {Operation, Multiply}
    assert types == set(OPERATIONS) == {type(item) for item in (
        *vit(SPEC), *vit(dataclasses.replace(SPEC, registers=1, pool="both")), *swin(SwinSpec()))}


@dataclass(frozen=True)
class Setting:
    model: Vit
    whole: Network
    record: Record
    statistics: Statistics

    def plan(self) -> Plan:
        parameters = {name: value.detach().double()
                      for name, value in self.model.named_parameters()}
        matrices = {name: Matrix(codes=weights.T, scale=torch.ones(
            () if name == "head" else weights.shape[1], dtype=torch.float64) / 1000)
            for name, weights in self.whole.weights.items()}
        return Plan(spec=SPEC, config=self.whole.config, parameters=parameters, matrices=matrices,
                    formats=self.whole.formats)


@pytest.fixture(scope="module")
def setting(model: Vit, whole: Network) -> Setting:
    method = METHODS["minmax"]()
    statistics = method.observe(model, [pictures(3) / 255])
    return Setting(model, whole, method.decide(statistics), statistics)


HOW = models.Preprocessing(size=8, crop=1.0, interpolation="bicubic", mean=(0.0, 0.0),
                           std=(1.0, 1.0))
CONSUMERS: dict[str, Callable[[Setting], Any]] = {
    "golden.network.calibrate": lambda it: calibrate(it.model, pictures(3), it.whole.config),
    "golden.network.plan": lambda it: build(it.plan()),
    "golden.network.inference": lambda it: inference.run(it.whole, pictures(1)),
    "golden.network.fast": lambda it: Fast(it.whole)(pictures(1)),
    "golden.deploy": lambda it: deploy(it.model, it.record, it.whole.config,
                                       statistics=it.statistics),
    "gen.compiler": lambda it: compile_network(it.whole),
}


def report(setting: Setting) -> Any:
    return noise(setting.model, setting.model, pictures(1) / 255, integer=setting.whole, how=HOW)


@pytest.mark.parametrize("name", CONSUMERS)
def test_every_consumer_handles_every_type(name: str, setting: Setting):
    CONSUMERS[name](setting)
    assert {"simulated", "integer"} == report(setting)["norm"].keys()


@dataclass(frozen=True, kw_only=True)
class Fold(Operation):
    """An operation that nobody knows."""


def with_one_more(item: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an operation stand behind the first norm."""
    def more(spec: VitSpec) -> tuple[Operation, ...]:
        found = list(vit(spec))
        place = next(index for index, known in enumerate(found) if isinstance(known, Norm))
        return (*found[:place + 1], item, *found[place + 1:])

    monkeypatch.setitem(TOPOLOGIES, "vit", more)


@pytest.mark.parametrize("name", CONSUMERS)
def test_an_operation_that_a_consumer_does_not_know_is_refused(
        name: str, setting: Setting, monkeypatch: pytest.MonkeyPatch):
    with_one_more(Fold(name="x.fold", reads=("blocks.0.norm1",), writes=("x.fold",)), monkeypatch)
    with pytest.raises(UnknownOperationError) as caught:
        CONSUMERS[name](setting)
    assert str(caught.value) == f"{name} doesn't know the operation Fold, at x.fold"


def test_a_report_refuses_an_operation_too(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    item = Fold(name="x.fold", reads=("blocks.0.norm1",), writes=("x.fold",))

    def run(network: Network, images: Tensor, see: Callable[[Call], object]) -> None:
        see(Call(operation=item, unit="fold", inputs={}, output=images))

    monkeypatch.setattr("golden.commands.report_layers.run", run)
    with pytest.raises(UnknownOperationError, match="doesn't know the operation Fold, at x"):
        report(setting)


@pytest.mark.parametrize("name", [name for name in CONSUMERS if not name.endswith("inference")])
def test_a_role_that_a_consumer_does_not_know_is_refused(
        name: str, setting: Setting, monkeypatch: pytest.MonkeyPatch):
    def other(spec: VitSpec) -> tuple[Operation, ...]:
        return tuple(dataclasses.replace(item, roles=("input",)) if "gelu" in item.roles else item
                     for item in vit(spec))

    monkeypatch.setitem(TOPOLOGIES, "vit", other)
    with pytest.raises(UnknownOperationError) as caught:
        CONSUMERS[name](setting)
    assert str(caught.value) == (f"{name} doesn't know the role 'input' of Requantize, at "
                                 "blocks.0.mlp.fc1")


def test_an_unknown_topology_is_refused(whole: Network):
    message = "topology must be one of vit, swin, not 'mlp'"
    with pytest.raises(ValueError) as caught:
        operations(SPEC, "mlp")
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=message):
        inference.run(dataclasses.replace(whole, topology="mlp"), pictures(1))
    with pytest.raises(ValueError, match="topology must be 'vit' for this shape, not 'swin'"):
        operations(SPEC, "swin")
    with pytest.raises(ValueError, match="topology must be 'swin' for this shape, not 'vit'"):
        operations(SwinSpec(), "vit")


def test_another_topology_is_another_function(whole: Network, monkeypatch: pytest.MonkeyPatch):
    """Patches from the last to the first, with positions that stay: another network."""
    def turned(spec: VitSpec) -> tuple[Operation, ...]:
        return tuple(dataclasses.replace(item, source=(BLANK, *reversed(range(spec.patches))))
                     if item.name == "tokens" else item for item in vit(spec))

    monkeypatch.setitem(topology.TOPOLOGIES, "turned", turned)
    other = dataclasses.replace(whole, topology="turned")
    images = pictures(2, 7)
    found = inference.run(other, images)
    assert torch.equal(Fast(other)(images), found)
    assert not torch.equal(inference.run(whole, images), found)
    # The same as the pictures with their patches in that order.
    cut = images.reshape(2, 2, 2, 4, 2, 4).flip((2, 4)).reshape(images.shape)
    assert torch.equal(inference.run(whole, cut), found)
    with pytest.raises(ValueError, match="the compiler has no passes for tokens: an order of tok"):
        compile_network(other)


def _reading(name: str, *reads: str) -> Callable[[Operation], Operation]:
    return lambda item: dataclasses.replace(item, reads=reads) if item.writes[0] == name else item


@pytest.mark.parametrize(("change", "message"), [
    (_reading("blocks.0.residual2", "blocks.0.mlp.fc2", "embedding"),
     "blocks.0.residual2: it reads embedding, where the residual stream is blocks.0.residual1"),
    (_reading("blocks.0.norm2", "embedding"),
     "blocks.0.norm2: it reads embedding, where the residual stream is blocks.0.residual1"),
    (_reading("blocks.0.mlp.fc1", "blocks.0.residual1"),
     "blocks.0.mlp.fc1: it can't read blocks.0.residual1 there"),
    (_reading("blocks.0.mlp.fc2", "blocks.0.norm2"),
     "blocks.0.mlp.fc2: it can't read blocks.0.norm2 there"),
    (_reading("norm", "blocks.0.residual2"), "head: logits are of one token"),
], ids=["residual", "stream", "no norm", "no codes", "all tokens"])
def test_the_compiler_refuses_an_order_that_has_no_passes(
        whole: Network, monkeypatch: pytest.MonkeyPatch, change: Callable[[Operation], Operation],
        message: str):
    monkeypatch.setitem(TOPOLOGIES, "vit", lambda spec: tuple(change(item) for item in vit(spec)))
    with pytest.raises(ValueError) as caught:
        compile_network(whole)
    assert str(caught.value) == f"the compiler has no passes for {message}"


def test_the_compiler_refuses_a_block_of_one_token(whole: Network,
                                                   monkeypatch: pytest.MonkeyPatch):
    def one(spec: VitSpec) -> tuple[Operation, ...]:
        return tuple(found for item in vit(spec) for found in (
            (Tokens(name="one", reads=("embedding",), writes=("one",), source=(0,)),
             dataclasses.replace(item, reads=("one",)))
            if item.name == "blocks.0.norm1" else (item,)))

    monkeypatch.setitem(TOPOLOGIES, "vit", one)
    formats = {**whole.formats, "one": whole.formats["embedding"]}
    with pytest.raises(ValueError) as caught:
        compile_network(dataclasses.replace(whole, formats=formats))
    assert str(caught.value) == ("the compiler has no passes for blocks.0.attn.qkv: only the "
                                 "logits are of one token")
