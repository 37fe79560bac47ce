# SPDX-License-Identifier: Apache-2.0
"""The integer network: integers only, close to the float network, and right on real images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from golden.commands import evaluate
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.vit import Vit
from golden.network import inference
from golden.network.calibrate import calibrate, observations
from golden.network.inference import Call
from golden.network.integers import Network
from golden.units.layernorm import layernorm
from golden.units.requant import requantize
from golden.units.softmax import log_softmax
from golden.units.systolic import matmul
from tests.sample import later, thorough
from vitforge.spec.config import Config, load

IMAGES = 20


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def sample() -> mnist.Sample:
    return mnist.sample()


@pytest.fixture(scope="module")
def whole(model: Vit, sample: mnist.Sample) -> Network:
    return calibrate(model, sample.calibration.images, Config())


@pytest.fixture(scope="module")
def calls(whole: Network, sample: mnist.Sample) -> list[Call]:
    found: list[Call] = []
    inference.run(whole, sample.test.images[:IMAGES], found.append)
    return found


class NoFloats(TorchDispatchMode):
    """Fails at the first operation that takes or gives a tensor that is not of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            real = isinstance(leaf, float) or (
                isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()))
            assert not real, f"{func} works on {leaf}"
        self.operations += 1
        return result


def test_no_operation_between_image_and_logits_is_real(whole: Network,
                                                       sample: mnist.Sample) -> None:
    with NoFloats() as guard:
        logits = inference.run(whole, sample.test.images[:2])
    assert logits.dtype == torch.int64
    assert guard.operations > 500
    with pytest.raises(AssertionError, match="works on"), NoFloats():
        torch.ones(2, dtype=torch.int64) / 2   # the guard does bite


def test_every_intermediate_is_int64(calls: list[Call]) -> None:
    checked = 0
    for call in calls:
        for name, value in (call.tensors() | {"output": call.output}).items():
            wanted = torch.bool if name == "keep" else torch.int64
            assert value.dtype == wanted, f"{call.unit} {call.name}: {name} is {value.dtype}"
            checked += 1
    # Products 26 * 4, embedding 7, requantizers 4 * 30, softmax 4 * 3, norms 9 * 5.
    assert checked == 288


def test_calls_are_named_as_the_float_tensors(calls: list[Call], model: Vit) -> None:
    block = [("norm1", "layernorm"), ("attn.qkv", "systolic"), ("attn.qkv", "requant"),
             ("attn.scores", "systolic"), ("attn.scores", "requant"), ("attn.softmax", "softmax"),
             ("attn.context", "systolic"), ("attn.context", "requant"), ("attn.proj", "systolic"),
             ("residual1", "requant"), ("norm2", "layernorm"), ("mlp.fc1", "systolic"),
             ("mlp.fc1", "requant"), ("mlp.fc2", "systolic"), ("residual2", "requant")]
    blocks = [(f"blocks.{n}.{name}", unit) for n in range(4) for name, unit in block]
    assert [(call.name, call.unit) for call in calls] == [
        ("patch_embed.proj", "systolic"), ("embedding", "requant"), *blocks,
        ("norm", "layernorm"), ("head", "systolic")]
    assert {call.name for call in calls} <= {name for name, _ in model.named_modules()}


def test_calls_can_be_replayed(calls: list[Call]) -> None:
    for call in calls:
        config, inputs = Config(), dict(call.inputs)
        match call.unit:
            case "systolic":
                output = matmul(**inputs)
            case "requant":
                output = requantize(**inputs, config=config)
            case "softmax":
                output = log_softmax(**inputs, config=config)
            case _:
                output = layernorm(**inputs, config=config)
        assert torch.equal(output, call.output)


def signal_to_noise(real: Tensor, found: Tensor) -> float:
    """Decibels."""
    power = real.double().square().sum() / (real - found).square().sum()
    return float(10 * power.log10())


def test_every_tensor_is_close_to_the_float_one(whole: Network, calls: list[Call], model: Vit,
                                                sample: mnist.Sample) -> None:
    seen = observations(model, mnist.pixels(sample.test.images[:IMAGES]))
    seen["norm"] = seen["norm"][:, :1]
    ratios = {}
    for call in calls:
        name = call.operation.writes[0]
        if call.unit != "systolic" and len(call.operation.writes) == 1:
            found = whole.formats[name].dequantize(call.output)
            assert found.shape == seen[name].shape
            ratios[name] = signal_to_noise(seen[name], found)
    assert len(ratios) == 2 + 8 * 4   # all but qkv, whose parts have formats
    assert ratios["embedding"] > 37
    assert ratios["blocks.0.norm1"] > 34.5
    assert ratios["blocks.0.attn.scores"] > 30
    # Four-bit powers of two are within 41 % of a probability, so the noise is theirs from here on.
    assert min(ratios.values()) > 12
    qkv = next(call.output for call in calls
               if (call.name, call.unit) == ("blocks.0.attn.qkv", "requant"))
    for index, part in enumerate("qkv"):
        real = seen[f"blocks.0.attn.{part}"].transpose(1, 2).flatten(2)
        found = whole.formats[f"blocks.0.attn.{part}"].dequantize(qkv.split(64, 2)[index])
        assert signal_to_noise(real, found) > 30


def test_logits_are_close_to_the_float_ones(whole: Network, model: Vit,
                                            sample: mnist.Sample) -> None:
    images = sample.test.images[:IMAGES]
    with torch.inference_mode():
        real = model(mnist.pixels(images)).double()
    found = inference.run(whole, images) * whole.logit_scale
    assert signal_to_noise(real, found) > 20


def test_shipped_images_are_classified(whole: Network, model: Vit, sample: mnist.Sample) -> None:
    done: list[int] = []
    result = evaluate.evaluate(model, whole, sample.test, done.append)
    assert result == evaluate.Result(300, 300, 300, 300)
    assert sum(done) == 300


def test_an_image_is_classified_alike_in_any_company(whole: Network, sample: mnist.Sample) -> None:
    images = sample.test.images[:3]
    together = inference.run(whole, images)
    for index in range(3):
        assert torch.equal(inference.run(whole, images[index:index + 1]), together[index:index + 1])
    assert torch.equal(inference.run(whole, images[:, None]), together)


@pytest.mark.parametrize("changes", [
    {"exponential": "iexp"}, thorough({"weight_bits": 4}), *map(later, [
        {"norm_bits": 9}, {"multiplier_bits": 10}, {"multiplier_bits": 1},
        {"attention": "uniform", "score_bits": 12}]),
    thorough({"multiplier_bits": 1, "attention": "uniform", "attention_bits": 8}),
    thorough({"weight_bits": 6, "score_bits": 6, "attention_bits": 3}),
    {"lanes": 7, "value_bits": 24, "norm_bits": 9},   # encoding shifts are at most 15
    thorough({"attention": "table", "exp_fraction_bits": 5}),
    {"attention": "two-scale", "attention_bits": 6, "operand_bits": 9},
], ids=str)
def test_other_widths_classify_too(changes: dict[str, Any], model: Vit,
                                   sample: mnist.Sample) -> None:
    config = dataclasses.replace(load("tiny"), **changes)
    integers = calibrate(model, sample.calibration.images, config)
    found = inference.run(integers, sample.test.images[:IMAGES])
    assert int((found.argmax(1) == sample.test.labels[:IMAGES]).sum()) >= IMAGES - 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"max_keys": 49}, "max_keys must be at least 50 for this network's keys, not 49"),
    ({"max_channels": 63}, "max_channels must be at least 64 for this network's channels, not 63"),
    ({"mantissa_bits": 8},
     "mantissa_bits must be 9 (8-bit codes less a zero point) for an integer network, not 8"),
    ({"norm_bits": 8},
     "norm_bits must be at least mantissa_bits (9) for an integer network, not 8"),
    ({"attention_bits": 5, "operand_bits": 16},
     ("operand_bits must be at least 17 (attention codes are log2 of 5 bits) for an integer "
      "network, not 16")),
    ({"value_bits": 10},
     "value_bits must be at least norm_bits (12) for an integer network, not 10"),
    ({"attention": "linear"},
     ("attention must be one of log2, uniform, two-scale, log-sqrt2, table for an integer "
     "network, not linear")),
    ({"attention": "table", "exponential": "iexp"},
     "exponential must be shift (attention is table) for an integer network, not iexp"),
])
def test_a_configuration_that_can_not_run_it_is_refused(
        changes: dict[str, Any], message: str, model: Vit, sample: mnist.Sample) -> None:
    with pytest.raises(ValueError) as caught:
        calibrate(model, sample.calibration.images[:2], Config(**changes))
    assert str(caught.value) == message


def test_images_of_another_kind_are_refused(whole: Network, model: Vit) -> None:
    with pytest.raises(TypeError, match=r"images must be uint8 codes, not torch\.float32"):
        inference.run(whole, torch.zeros(1, 28, 28))
    with pytest.raises(ValueError) as caught:
        inference.run(whole, torch.zeros(1, 32, 32, dtype=torch.uint8))
    assert str(caught.value) == \
        "images must have channels, height and width (1, 28, 28), not (1, 32, 32)"
    with pytest.raises(ValueError, match="images must have"):
        calibrate(model, torch.zeros(1, 3, 28, 28, dtype=torch.uint8), Config())


def test_evaluate_command(tmp_path: Path, sample: mnist.Sample,
                          capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "digits.npz"
    images = sample.test.images[:20].numpy()
    labels = sample.test.labels[:20].numpy().copy()
    labels[0] = (labels[0] + 1) % 10
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert evaluate.main(["--data", str(data), "--config", "tiny"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["images", "20"], ["float", "19", "95.00%"], ["integer", "19", "95.00%"],
                     ["alike", "20", "100.00%"]]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "none.npz"], "can't read none.npz: No such file or directory"),
    (["--weights", "none.safetensors"], "can't read none.safetensors: No such file or directory"),
    (["--config", "huge"], "no configuration 'huge': give one of "),
])
def test_evaluate_refuses_in_one_line(arguments: list[str], message: str,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"golden.evaluate: error: {message}") and error.count("\n") == 1
