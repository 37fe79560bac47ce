# SPDX-License-Identifier: Apache-2.0
"""Float networks as other tools export them: recognised with onnxruntime's logits, or refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from gen.compiler.model import quantized
from golden.commands import quantize, rotate
from golden.float.checkpoint import CheckpointError
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.graph import fold, values
from golden.graph.onnx_file import recognised
from golden.graph.opened import open_network
from golden.graph.values import LARGEST, NotUnderstoodError
from golden.network import file as network_file
from tests.data.make_onnx_networks import stored
from vitforge.spec.config import load

VIT = VitSpec(image_size=12, patch_size=4, in_channels=2, classes=3, dim=6, depth=2, heads=2,
              mlp_hidden=12)
SWIN = SwinSpec(image_size=24, patch_size=2, in_channels=1, classes=3, dim=4, depths=(2, 1),
                heads=(1, 2), window=6, mlp_ratio=2)
#: What is understood, and its shape.
KNOWN = {
    "vit_17": VIT, "vit_17_batch": VitSpec(**vars(VIT) | {"in_channels": 3}),
    "vit_14_norms_of_operators": VIT, "vit_18_new": VIT, "vit_23_attention_operator": VIT,
    "vit_layer_scale": VIT, "swin_17": SWIN,
    "swin_13_batch": SwinSpec(**vars(SWIN) | {"depths": (2,), "heads": (2,)}),
    "swin_20_new": SwinSpec(**vars(SWIN) | {"image_size": 16, "window": 4}),
    "hf_vit": VitSpec(**vars(VIT) | {"norm_eps": 1e-12}),
    "hf_vit_new": VitSpec(**vars(VIT) | {"norm_eps": 1e-12}), "hf_swin": SWIN,
    "vit_registers": VitSpec(**vars(VIT) | {"registers": 3}),
    "clip": VitSpec(**vars(VIT) | {"norm_pre": True, "norm_eps": 1e-5}),
    "clip_quick_gelu": VitSpec(**vars(VIT) | {"norm_pre": True, "norm_eps": 1e-5,
                                              "gelu": "quick"}),
}


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(stored(name))
    return path


def logits(path: Path, images: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # A file may take one image at a time.
    return torch.from_numpy(np.concatenate([session.run(None, {name: images[n:n + 1].numpy()})[0]
                                            for n in range(len(images))]))


@pytest.mark.parametrize("name", KNOWN)
def test_logits_are_onnxruntimes(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name)
    found = open_network(path)
    assert found.model.spec == KNOWN[name] and not found.model.training
    assert str(found).endswith("(from the graph)")
    spec = found.model.spec
    images = torch.randn(3, spec.in_channels, spec.image_size, spec.image_size,
                         generator=torch.Generator().manual_seed(1))
    wanted = logits(path, images)
    with torch.inference_mode():
        logit = found.model(images)
    assert wanted.std(0).min() > 1e-3   # the images differ
    assert (logit - wanted).abs().max() < 3e-6 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize(("name", "message"), [
    ("vit_norms_of_queries", ("LayerNormalization at '/blocks/blocks.0/attn/q_norm/"
                              "LayerNormalization' is not understood there: expected Q K.T of "
                              "the heads of the attention of block 0")),
    ("deit_distilled", "operator Gemm at '/head_dist/Gemm' .*: expected nothing behind the logits"),
    ("vit_mean", "expected a class token before the patches"),
    ("vit_mean_behind_norm", "operator ReduceMean at .*: expected a classifier of the class token"),
    ("swin_v2", "expected the norm before block 0 of stage 0"),
    ("beit", "expected attention of all 10 tokens without a bias in block 0"),
    ("resnet", (r"operator Conv at '/conv1/conv1.0/Conv' is not understood \(its patches overlap, "
                r"or are padded\): expected the embedding of patches")),
])
def test_other_networks_say_where_and_what_was_expected(name: str, message: str,
                                                        tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        open_network(written(tmp_path, name))
    assert str(caught.value).startswith(f"{tmp_path / name}.onnx: ")


def changed(name: str, change: Callable[[onnx.ModelProto], object]) -> str:
    """Return why a network is refused after a change."""
    made = onnx.load_model_from_string(stored(name))
    change(made)
    with pytest.raises(NotUnderstoodError) as caught:
        recognised(made)
    return str(caught.value)


def node(made: onnx.ModelProto, operator: str, number: int = 0) -> onnx.NodeProto:
    return [item for item in made.graph.node if item.op_type == operator][number]


def test_a_change_of_each_operator_is_refused_there() -> None:
    def tanh(made: onnx.ModelProto) -> None:
        node(made, "Erf").op_type = "Tanh"

    def resized(made: onnx.ModelProto) -> None:
        node(made, "Softmax", 1).op_type = "LpNormalization"

    def softmax_at_the_end(made: onnx.ModelProto) -> None:
        made.graph.node.append(helper.make_node("Softmax", [made.graph.output[0].name], ["p"],
                                                name="last"))
        made.graph.output[0].name = "p"

    def own_domain(made: onnx.ModelProto) -> None:
        node(made, "Softmax").domain = "com.example"

    def other_axis(made: onnx.ModelProto) -> None:
        next(a for a in node(made, "Softmax").attribute if a.name == "axis").i = 1

    def another_batch(made: onnx.ModelProto) -> None:
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    assert re.search(r"MatMul at '/blocks/blocks.0/mlp/fc2/MatMul' .*expected the second layer of "
                     "the MLP of block 0 behind the exact GELU, not another function",
                     changed("vit_17", tanh))
    assert re.search("LpNormalization at '/blocks/blocks.1/attn/Softmax' is not understood: "
                     "expected softmax of the scores of the attention of block 1",
                     changed("vit_17", resized))
    assert changed("vit_17", softmax_at_the_end) == \
        "operator Softmax at 'last' is not understood there: expected nothing behind the logits"
    assert "(it is of com.example, not of ONNX): expected softmax of the scores" in \
        changed("vit_17", own_domain)
    assert "(it is not of the last dimension): expected softmax" in changed("vit_17", other_axis)
    assert "expected one image, or any number, of a fixed size" in changed("vit_17", another_batch)


def replaced(made: onnx.ModelProto, shape: tuple[int, ...],
             change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the first constant of a shape."""
    for item in made.graph.initializer:
        if tuple(item.dims) == shape:
            item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(
                change(numpy_helper.to_array(item))), item.name))
            return
    raise AssertionError(shape)


def test_masks_and_position_biases_are_looked_at() -> None:
    def other_masks(made: onnx.ModelProto) -> None:
        constants = [one.t for item in made.graph.node for one in item.attribute
                     if item.op_type == "Constant" and one.HasField("t")]
        for item in (*made.graph.initializer, *constants):
            value = numpy_helper.to_array(item)
            if value.dtype == np.float32 and value.min(initial=0) == -100:
                item.CopyFrom(numpy_helper.from_array(value / np.float32(2), item.name))

    assert re.search("expected scores with a bias by relative position, and shifted windows masked,"
                     " in block 1 of stage 0", changed("swin_17", other_masks))


def test_shapes_that_contradict_each_other() -> None:
    assert re.search("Gemm .* does not fit weights|Gemm at '/head/Gemm' is not understood",
                     changed("vit_17", lambda made: replaced(
                         made, (3, 6), lambda value: value[:, :4])))
    assert "patches of [5, 5] don't divide [1, 2, 12, 12]" in changed(
        "vit_17", lambda made: replaced(made, (6, 2, 4, 4), lambda value: np.zeros(
            (6, 2, 5, 5), np.float32)) or _kernel(made, 5))


def _kernel(made: onnx.ModelProto, size: int) -> None:
    for item in node(made, "Conv").attribute:
        if item.name in ("kernel_shape", "strides"):
            item.ints[:] = [size, size]


def bomb(operator: str) -> onnx.ModelProto:
    """Return a small file that claims a large tensor."""
    huge = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "huge")
    if operator == "image":
        shape, nodes = [1, 3, 1 << 20, 1 << 20], [helper.make_node("Identity", ["x"], ["y"])]
    elif operator == "doubling":
        shape, nodes = [1, 1, 8, 8], [helper.make_node("Concat", [f"x{n}", f"x{n}"], [f"x{n + 1}"],
                                                       axis=0, name=f"concat {n}")
                                      for n in range(60)]
        nodes[0].input[:] = ["x", "x"]
        nodes[-1].output[:] = ["y"]
    else:
        shape = [1, 1, 8, 8]
        given = {"Expand": ["one", "huge"], "ConstantOfShape": ["huge"]}[operator]
        nodes = [helper.make_node(operator, given, ["large"], name="bomb"),
                 helper.make_node("Add", ["x", "large"], ["y"])]
    graph = helper.make_graph(nodes, "bomb", [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [huge, numpy_helper.from_array(np.ones((1, 1), np.float32), "one")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("operator", ["image", "doubling", "Expand", "ConstantOfShape"])
def test_a_claim_of_a_large_tensor_takes_no_memory(operator: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    assert (1 << 40) > LARGEST
    if operator == "doubling":   # until it is too large: a gigabyte otherwise
        for module in (values, fold):
            monkeypatch.setattr(module, "LARGEST", 1 << 16)
    with pytest.raises(NotUnderstoodError, match="too large"):
        recognised(bomb(operator))


def command(path: Path, colours: Path, *more: str) -> list[str]:
    return ["--method", "minmax", "--checkpoint", str(path), "--calibration", str(colours), *more]


def test_the_commands_take_it(colours: Path, tmp_path: Path, capsys) -> None:
    path = written(tmp_path, "vit_17_batch")
    assert quantize.main(command(path, colours, "--evaluate", str(colours), "-o",
                                 str(tmp_path / "out"))) == 0
    text = capsys.readouterr()
    assert re.search("vit_17_batch.onnx: 12x12 pixels of 3 channels, patches of 4, 2 blocks of 6 "
                     "channels, MLP of 12, 3 classes, 2 heads .from the graph.", text.err)
    assert re.findall(r"^(\w+) +\d of 6", text.out, re.M) == ["float", "simulated", "integer"]
    assert network_file.load(tmp_path / "out").spec == KNOWN["vit_17_batch"]
    swin = written(tmp_path, "swin_17")
    network = quantized("vit", load("swin16"), file=swin, calibration=colours, images=2)
    assert network.spec == SWIN
    assert rotate.main(["--checkpoint", str(swin), "--calibration", str(colours), "-o",
                        str(tmp_path / "turned.safetensors")]) == 2
    assert "swin_17.onnx is a Swin: its stream can't be turned" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "more", "message"), [
    (lambda data: data[:200], (), "is not an ONNX file, is truncated or corrupt"),
    (lambda data: data[:-2000], (), "is not an ONNX file, is truncated or corrupt"),
    (lambda data: b"", (), "holds no graph"),
    (lambda data: data, ("--heads", "3"), "--heads does not go with .*a graph shows its whole"),
    (lambda data: data, ("--model", "mnist_vit"), "--model does not go with"),
])
def test_bad_files_are_one_line(change, more, message, tmp_path: Path, colours: Path,
                                capsys) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(change(stored("vit_17_batch")))
    assert quantize.main(command(path, colours, *more, "-o", str(tmp_path / "out"))) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error
    assert not (tmp_path / "out").exists()


def test_weights_beside_the_file_stay_in_its_folder(tmp_path: Path) -> None:
    made = onnx.load_model_from_string(stored("vit_18_new"))
    path = tmp_path / "inside" / "net.onnx"
    path.parent.mkdir()
    onnx.save(made, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    assert isinstance(open_network(path).model, Vit)
    (tmp_path / "net.onnx.data").write_bytes((path.parent / "net.onnx.data").read_bytes())
    (path.parent / "net.onnx.data").unlink()
    with pytest.raises(CheckpointError, match=r"can't read|weights are not beside it"):
        open_network(path)
    outside = onnx.load(path, load_external_data=False)
    for item in outside.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = "../net.onnx.data"
    path.write_bytes(outside.SerializeToString())
    with pytest.raises(CheckpointError, match=r"can't read|are not beside it"):
        open_network(path)
    with pytest.raises(CheckpointError, match=r"can't read .*nowhere.onnx: No such file"):
        open_network(tmp_path / "nowhere.onnx")


def test_a_constant_of_no_type_is_named() -> None:
    def undefined(made: onnx.ModelProto) -> None:
        made.graph.initializer[0].data_type = 99

    assert re.fullmatch("the constant '.+' can't be read", changed("vit_17", undefined))


def test_a_swin_is_described_too(tmp_path: Path) -> None:
    found = open_network(written(tmp_path, "swin_17"))
    assert isinstance(found.model, Swin)
    assert str(found).startswith("a Swin, 24x24 pixels of 1 channels, patches of 2, windows of 6, "
                                 "2+1 blocks of 4 channels and more, 3 classes, 1+2 heads")
