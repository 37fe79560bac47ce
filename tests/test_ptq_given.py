# SPDX-License-Identifier: Apache-2.0
"""Formats from a file: a record's again, those of RepQ-ViT's official modules, and refusals."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples.own_scales.repq_vit import write
from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.commands.quantize import configured
from golden.data import mnist
from golden.float import checkpoint
from golden.float.shape import open_checkpoint
from golden.float.vit import Vit
from golden.network import file as network_file
from golden.ptq.formats import TensorFormat
from golden.ptq.given import Given, GivenSettings
from golden.ptq.record import Record
from tests.records import differences


class UniformQuantizer(nn.Module):
    """What the official class keeps."""

    def __init__(self, item: TensorFormat, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.n_bits, self.delta = item.bits, torch.tensor(item.scale).reshape(shape)
        # Codes are unsigned there: those of the classifier, which are signed here, have a middle.
        middle = 1 << item.bits - 1 if item.signed else 0
        self.zero_point = torch.tensor(item.zero_point).add(middle).float().reshape(shape)


class LogSqrt2Quantizer(nn.Module):
    """What the official class keeps."""

    def __init__(self, item: TensorFormat) -> None:
        super().__init__()
        self.n_bits, self.delta = item.bits, torch.tensor(item.scale)


def official(model: Vit, record: Record) -> nn.Module:
    """Return a network with the quantizers of the official code, as a record says."""
    found: Any = copy.deepcopy(model)
    state = dict(found.named_parameters())
    for name, value in record.parameters.items():
        state[name].data = value.clone()
    forms = record.formats
    for name, module in list(found.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = forms[f"{name}.weight"]
            many = isinstance(weight.scale, tuple)
            module.weight_quantizer = UniformQuantizer(
                weight, (-1, *(1,) * (module.weight.ndim - 1)) if many else ())
            site = {"qkv": "norm1", "fc1": "norm2"}.get(name.rpartition(".")[2])
            block = ".".join(name.split(".")[:2])
            read = f"{block}.{site}" if site else {
                "patch_embed.proj": "input", "head": "norm"}.get(name) or (
                    f"{block}.mlp.act" if name.endswith("fc2") else f"{block}.attn.context")
            module.input_quantizer = UniformQuantizer(forms[read], ())
    for number, block in enumerate(found.blocks):
        names = [f"blocks.{number}.attn.{part}" for part in ("q", "k", "softmax", "v")]
        first, second = nn.Module(), nn.Module()
        first.quantizer_A, first.quantizer_B = (
            UniformQuantizer(forms[name], ()) for name in names[:2])
        second.quantizer_A = LogSqrt2Quantizer(forms[names[2]])
        second.quantizer_B = UniformQuantizer(forms[names[3]], ())
        block.attn.matmul1, block.attn.matmul2 = first, second
    return found


@pytest.fixture(scope="module")
def decided() -> tuple[Vit, Record, Tensor]:
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    method = configured("repq-vit", {"weights": 4, "activations": 4}, ["symmetric=false"])
    record = method.decide(method.observe(model, [mnist.pixels(sample.calibration.images)[:32]]))
    return model, record, mnist.pixels(sample.test.images[:40])


def test_the_official_layout_gives_the_record_again(decided: tuple[Vit, Record, Tensor],
                                                    tmp_path: Path) -> None:
    model, record, images = decided
    write(official(model, record), tmp_path / "weights.pth", tmp_path / "scales.json")
    found = open_checkpoint(tmp_path / "weights.pth", heads=4).model
    method = Given(GivenSettings(file=str(tmp_path / "scales.json")))
    given = method.decide(method.observe(found, [images]))
    assert given.formats.keys() == record.formats.keys()
    for name, item in given.formats.items():   # scales went through single precision
        wanted = record.formats[name]
        zero = 8 if name == "head.weight" else wanted.zero_point
        assert (item.kind, item.bits, item.zero_point) == (wanted.kind, wanted.bits, zero)
        assert torch.allclose(torch.tensor(item.scale), torch.tensor(wanted.scale), rtol=1e-6)
    one, other = method.apply(found, given), method.apply(model, record)
    with torch.inference_mode():
        got, wanted_logits = one(images), other(images)
    assert torch.equal(got.argmax(1), wanted_logits.argmax(1))
    assert ((got - wanted_logits).abs().amax(1) < 1e-3).float().mean() > 0.8


@pytest.mark.thorough
def test_the_command_deploys_a_records_formats(decided: tuple[Vit, Record, Tensor],
                                               tmp_path: Path, write_digits, capsys) -> None:
    _, record, _ = decided
    pictures = write_digits(tmp_path / "pictures", mnist.sample().calibration, 20)
    plain = Record(method="mine", settings={}, formats=record.formats)
    plain.save(tmp_path / "record.json")
    given = ["--method", "golden.ptq.given:Given", "--model", "mnist_vit", "--checkpoint",
             str(WEIGHTS), "--calibration", str(pictures), "--evaluate", str(pictures), "-o",
             str(tmp_path / "out"), "--set", f"file={tmp_path / 'record.json'}"]
    assert quantize.main(given) == 0
    assert len(re.findall(r"^(float|simulated|integer) +\d+ of 20", capsys.readouterr().out,
                          re.M)) == 3
    saved = Record.load(tmp_path / "out" / "record.json")
    assert saved.method == "given" and differences(saved, plain) == ()
    assert network_file.load(tmp_path / "out").formats
    # Another file of the same name is not the same run.
    text = json.loads((tmp_path / "record.json").read_text())
    text["formats"]["head.weight"]["scale"] *= 2
    (tmp_path / "record.json").write_text(json.dumps(text))
    assert quantize.main(given) == 0
    again = Record.load(tmp_path / "out" / "record.json")
    assert differences(again, saved) == ("head.weight",)


@pytest.mark.parametrize(("content", "message"), [
    (None, "can't read .*scales.json: No such file"),
    ("{", "scales.json must hold JSON with formats"),
    ("[]", "scales.json must hold JSON with formats"),
    ('{"formats": {"norm": 3}}', "scales.json: norm: "),
    ('{"formats": {"norm": {"kind": "uniform", "bits": 9, "scale": 1.0}}}',
     "scales.json: norm: bits must be 2 to 8, not 9"),
    ('{"formats": {"norm": {"kind": "uniform", "bits": 8, "scale": NaN}}}',
     "scales.json: norm: scale of uniform must be positive and finite"),
    ('{"formats": {"nothing": {"kind": "uniform", "bits": 8, "scale": 1.0}}}',
     "'nothing' is no tensor of this network with a format"),
    ('{"formats": {"norm": {"kind": "uniform", "bits": 8, "scale": [1.0, 2.0]}}}',
     "'norm' has 64 channels, not 2"),
    ('{"formats": {"norm": {"kind": "uniform", "bits": 8, "scale": 1.0}}}',
     "'patch_embed.proj.weight' has no format, and weights are integers"),
])
def test_bad_files_are_one_line_before_images_are_computed(
        content: str | None, message: str, tmp_path: Path, write_digits, capsys,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vit, "forward", lambda *_: pytest.fail("an image is computed"))
    pictures = write_digits(tmp_path / "pictures", mnist.sample().calibration, 2)
    if content is not None:
        (tmp_path / "scales.json").write_text(content)
    assert quantize.main([
        "--method", "golden.ptq.given:Given", "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
        "--calibration", str(pictures), "--set", f"file={tmp_path / 'scales.json'}"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error


def test_a_file_is_needed(decided: tuple[Vit, Record, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"--set file=FILE.json is needed"):
        Given().observe(decided[0], [])
