# SPDX-License-Identifier: Apache-2.0
"""Simulated networks as ONNX: onnxruntime computes what the simulation does, and refusals."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.commands.quantize import configured
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.onnx.codes import quantized, weight
from golden.onnx.export import model as exported
from golden.onnx.graph import Graph
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.record import Record
from tests.sample import thorough
from tests.tangent import tangent_table


def computed(made: onnx.ModelProto, images: Tensor, *, fused: bool = False) -> Tensor:
    """Run a model, node by node unless kernels may be fused."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {made.graph.input[0].name: images.numpy()})[0])


FORMATS = [
    TensorFormat(kind="uniform", bits=8, scale=0.03125, zero_point=100),
    TensorFormat(kind="uniform", bits=3, scale=0.5, signed=True),
    TensorFormat(kind="uniform", bits=8, scale=0.0625, signed=True),
    TensorFormat(kind="uniform", bits=4, scale=0.25, zero_point=7),
    TensorFormat(kind="uniform", bits=5, scale=0.25, zero_point=40),
    TensorFormat(kind="uniform", bits=8, scale=0.0625, zero_point=-3),
    TensorFormat(kind="uniform", bits=6, scale=(0.125, 0.25, 0.5, 1.0), zero_point=(3, 30, 0, 63)),
    TensorFormat(kind="uniform", bits=8, scale=(0.125, 0.25, 0.5, 1.0), zero_point=(3, 300, 0, -9)),
    TensorFormat(kind="shifted", bits=8, scale=2.0**-7, zero_point=120, shift=(0, 1, 2, 3)),
    TensorFormat(kind="two-scale", bits=8, scale=0.015625, m=3),
    TensorFormat(kind="two-scale", bits=4, scale=0.125, m=2, signed=True),
    TensorFormat(kind="log2", bits=4, scale=2.0**-15),
    TensorFormat(kind="log-sqrt2", bits=4, scale=0.75),
    TensorFormat(kind="table", bits=4, scale=1 / 256, values=tangent_table().values),
    TensorFormat(kind="tangent", bits=3, scale=1.0, slope=1.0, end_slope=0.7),
]


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("item", FORMATS, ids=lambda item: f"{item.kind}-{item.bits}")
def test_a_format_is_the_simulations_but_for_halves(item: TensorFormat, opset: int) -> None:
    x = torch.randn(3, 700, 4, generator=torch.Generator().manual_seed(3)) * 3
    x = torch.cat((x, torch.zeros(3, 1, 4), x / 50, x.abs() / 9), 1)
    graph = Graph(opset)
    made = graph.model(("x", [3, None, 4]), ("y", [3, None, 4]), quantized(graph, "x", item), {})
    assert torch.equal(computed(made, x), simulate(x, item))
    if item.kind == "uniform" and item.scale == 0.25 and item.bits == 4:
        halves = torch.tensor([0.125, 0.375, -0.125, -0.375])[None, None].expand(3, 1, 4)
        assert simulate(halves, item)[0, 0].tolist() == [0.25, 0.5, 0, -0.25]
        assert computed(made, halves)[0, 0].tolist() == [0, 0.5, 0, -0.5]


@pytest.mark.parametrize("item", [
    TensorFormat(kind="uniform", bits=8, scale=(0.1, 0.3, 0.7), axis=0, signed=True),
    TensorFormat(kind="uniform", bits=3, scale=0.1, axis=0, signed=True),
    TensorFormat(kind="uniform", bits=4, scale=(0.1, 0.3, 0.7), zero_point=(0, 9, 15), axis=0),
    TensorFormat(kind="uniform", bits=6, scale=(0.1, 0.3, 0.7), zero_point=(0, 63, 31), axis=0)])
@pytest.mark.parametrize("opset", [17, 21])
def test_weights_are_the_very_codes(item: TensorFormat, opset: int) -> None:
    value = simulate(torch.randn(3, 9, generator=torch.Generator().manual_seed(1)), item)
    graph = Graph(opset)
    got = graph("Add", weight(graph, value, item, transposed=True), "x")
    made = graph.model(("x", [1, 1]), ("y", [9, 3]), got, {})
    assert torch.equal(computed(made, torch.zeros(1, 1)), value.T)
    kind = onnx.TensorProto.DataType.Name(
        next(c for c in made.graph.initializer if c.name.startswith("weight")).data_type)
    assert kind == ("" if item.signed else "U") + f"INT{4 if opset == 21 and item.bits <= 4 else 8}"


#: Method, options, and the share of digits all of whose logits are the simulation's: the others
#: have an activation on a half somewhere, or one that rounding of sums took over a threshold.
SETTINGS = (
    thorough("minmax", {"weights": 8, "activations": 8}, [], 0.9),
    thorough("minmax", {"weights": 4, "activations": 4, "stream": 6}, [], 0.95),
    ("fq-vit", {}, [], 0.9),
    thorough("tsptq-vit", {"weights": 3}, [], 0.85),
    thorough("repq-vit", {"weights": 4, "activations": 4}, ["symmetric=false"], 0.95),
    thorough("dopq-vit", {"weights": 3, "activations": 4}, ["reconstruct=no"], 0.95),
    ("dopq-vit", {"weights": 4, "activations": 4}, ["reconstruct=no", "core=false", "top=0"], 0.95),
)


@pytest.fixture(scope="module")
def digits() -> tuple[Vit, Tensor, Tensor]:
    sample = mnist.sample()
    return (checkpoint.load(WEIGHTS), mnist.pixels(sample.calibration.images)[:32],
            mnist.pixels(sample.test.images))


@pytest.mark.parametrize(("name", "widths", "more", "share"), SETTINGS)
def test_all_digits_have_the_simulations_class(digits, name: str, widths: dict[str, int],
                                               more: list[str], share: float) -> None:
    network, calibration, test = digits
    method = configured(name, widths, more)
    record = method.decide(method.observe(network, [calibration]))
    simulated = method.apply(network, record)
    with torch.inference_mode():
        wanted = simulated(test)
    made = exported(simulated, record)
    found = computed(made, test)
    apart = (found - wanted).abs().amax(1)
    print(f"{name} {widths}: largest difference of a logit {apart.max():.3g} "
          f"of {wanted.abs().max():.3g}, {int((apart < 1e-4).sum())} of {len(test)} digits alike")
    assert len(test) == 300
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    assert (apart < 1e-4).float().mean() >= share
    operators = Counter(node.op_type for node in made.graph.node)
    # Every layer, and in minmax's record every site, has codes.
    assert operators["DequantizeLinear"] - operators["QuantizeLinear"] == 4 * network.spec.depth + 2
    if name == "minmax":
        assert operators["QuantizeLinear"] == len(record.formats) - 4 * network.spec.depth - 2


@pytest.mark.parametrize("opset", [17, 21])
def test_a_swin_is_its_simulation(opset: int) -> None:
    spec = SwinSpec(image_size=24, patch_size=2, in_channels=2, classes=5, dim=6, depths=(2, 2),
                    heads=(1, 2), window=6)
    network = Swin(spec).initialize(1).eval()
    images = torch.randn(6, 2, 24, 24, generator=torch.Generator().manual_seed(2))
    for name, widths, apart in (("minmax", {}, 2e-2), ("fq-vit", {}, 5e-2)):
        method = configured(name, widths, [])
        record = method.decide(method.observe(network, [images]))
        simulated = method.apply(network, record)
        with torch.inference_mode():
            wanted = simulated(images)
        found = computed(exported(simulated, record, opset), images)
        assert torch.equal(found.argmax(1), wanted.argmax(1))
        assert (found - wanted).abs().max() < apart * wanted.abs().max()
    # In floating point but for its weights the whole graph is compared to rounding errors.
    weights = Record(method="minmax", settings={}, formats={
        key: item for key, item in record.formats.items() if key.endswith(".weight")})
    simulated = method.apply(network, weights)
    with torch.inference_mode():
        wanted = simulated(images)
    assert (computed(exported(simulated, weights, opset), images) - wanted).abs().max() < 1e-5


def test_relu_and_reals_stay() -> None:
    network = Vit(VitSpec(image_size=8, dim=8, depth=1, heads=2, mlp_hidden=12)).initialize(3)
    record = Record(method="none", settings={}, formats={}, activation="relu")
    simulated = configured("minmax", {}, []).apply(network.eval(), record)
    made = exported(simulated, record)
    operators = {node.op_type for node in made.graph.node}
    assert operators & {"Relu", "Gelu", "QuantizeLinear", "DequantizeLinear"} == {"Relu"}
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        assert (computed(made, images) - simulated(images)).abs().max() < 1e-5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_digits) -> Path:
    return write_digits(tmp_path_factory.mktemp("onnx"), mnist.sample().calibration, 20)


def test_the_command_writes_it(pictures: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "net.onnx"
    given = ["--method", "minmax", "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
             "--calibration", str(pictures), "--onnx", str(out)]
    assert quantize.main([*given, "--weights", "4", "--opset", "21"]) == 0
    assert re.search(r"^onnx +\S+net.onnx, \d+ operators of opset 21$", capsys.readouterr().out,
                     re.M)
    made = onnx.load(out)
    notes = {item.key: item.value for item in made.metadata_props}
    assert (notes["method"], notes["model"]) == ("minmax", "mnist_vit")
    assert json.loads(notes["preprocessing"])["size"] == 28
    assert made.opset_import[0].version == 21
    types = Counter(item.data_type for item in made.graph.initializer
                    if item.name.endswith("/weight") and "norm" not in item.name)
    assert types == {onnx.TensorProto.INT4: 18}
    image = np.zeros((2, 1, 28, 28), np.float32)
    assert computed(made, torch.from_numpy(image), fused=True).shape == (2, 10)


@pytest.mark.parametrize(("more", "message"), [
    (("--onnx", "F.txt"), "--onnx must be a file that ends with .onnx, not F.txt"),
    (("--onnx", "F.onnx", "--opset", "16"), "--opset must be 17 to 23, not 16"),
    (("--onnx", "F.onnx", "--method", "erq", "--set", "dual=true"),
     "--onnx: all layers' weights have two scales in a row, .* --set dual=false"),
    (("--onnx", "F.onnx", "--method", "fq-vit", "--set", "softmax=shift"),
     "shift-based softmax.* --set softmax=polynomial, or float"),
])
def test_what_can_not_be_written_is_said_before(tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    # No picture is looked for: it would be refused before.
    assert quantize.main(["--method", "minmax", "--checkpoint", "F.pth", "--calibration", "nowhere",
                          *more]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error
    assert not list(tmp_path.iterdir())


def test_a_record_says_which_layer_has_no_codes() -> None:
    network = Vit(VitSpec(image_size=8, dim=8, depth=1, heads=2, mlp_hidden=12)).initialize(3)
    for item, message in (
            (TensorFormat(kind="dual", bits=4, axis=0, scale=(0.1,) * 8, zero_point=(8,) * 8,
                          group=(0, 1) * 6, group_scale=(0.2,) * 8, group_zero_point=(8,) * 8),
             "blocks.0.mlp.fc2.weight has two scales in a row, .* --set dual=false"),
            (TensorFormat(kind="log2", bits=4, scale=2.0**-15),
             "blocks.0.mlp.fc2.weight has log2 codes")):
        record = Record(method="own", settings={}, formats={"blocks.0.mlp.fc2.weight": item})
        with pytest.raises(ValueError, match=message):
            exported(network, record)
