# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.quantize -o DIR``: the integer network beside the float simulation."""

import re
from pathlib import Path

import pytest
import torch

from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.deploy.notes import load_notes
from golden.deploy.widths import weight_bytes
from golden.float.models import DIGITS
from golden.float.preprocessing import of_text
from golden.network import file as network_file
from golden.network import inference
from golden.ptq import METHODS
from golden.ptq.record import Record
from tests.sample import thorough

KEPT = ["model.json", "model.safetensors", "notes.json", "record.json"]
FILES = sorted([*KEPT, "attention.svg", "gelu.svg", "norm.svg", "report.md", "stream.svg"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_digits):
    folder, sample = tmp_path_factory.mktemp("pictures"), mnist.sample()
    return (write_digits(folder / "calibration", sample.calibration, 20),
            write_digits(folder / "test", sample.test, 30))


def command(pictures: tuple[Path, Path], *more: str) -> list[str]:
    return ["--model", "mnist_vit", "--checkpoint", str(WEIGHTS), "--calibration",
            str(pictures[0]), "--evaluate", str(pictures[1]), "--method", "minmax", *more]


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def counts(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in
            re.findall(r"^(float|simulated|integer) +(\d+) of 30 +[\d.]+%$", text, re.M)}


def right(folder: Path) -> int:
    split = mnist.sample().test
    logits = inference.run(network_file.load(folder), split.images[:30])
    return int((logits.argmax(1) == split.labels[:30]).sum())


def test_everything_is_written_and_counted(pictures, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    # Few bits, so that the counts differ.
    assert quantize.main(command(pictures, "--weights", "3", "--activations", "4", "--stream", "4",
                                 "--config", "edge8", "-o", str(out))) == 0
    text = capsys.readouterr().out
    found = counts(text)
    assert list(found) == ["float", "simulated", "integer"]
    assert found["integer"] == right(out) != found["float"]
    assert text.splitlines()[-1] == f"results: {out}"
    assert names(out) == FILES
    whole = network_file.load(out)
    assert (whole.config.name, whole.config.attention) == ("edge8", "log2")
    about = network_file.about(out)
    assert of_text(about.pop("preprocessing")) == DIGITS
    assert about == {"model": "mnist_vit", "method": "minmax"}
    assert Record.load(out / "record.json").settings["weights"] == 3
    page = (out / "report.md").read_text()
    for name, count in found.items():
        assert f"| {name} | {count} | 30 | {count / 30:.2%} |" in page
    # Three bits a weight.
    layers = 16 * 64 + 4 * (64 * 192 + 64 * 64 + 2 * 64 * 128) + 640
    assert weight_bytes(whole) == layers * 3 // 8
    deployed = re.search(r"^deployed +(3\.00 bits a weight, [\d.]+ an operand, 4\.00 the residual "
                         r"stream)$", text, re.M)
    assert deployed and f"As deployed: {deployed[1]}." in page
    assert f"{weight_bytes(whole):,} bytes of weights" in page
    for name in ("attention.svg", "gelu.svg", "norm.svg", "stream.svg"):
        assert f"]({name})" in page
        assert (out / name).read_text().startswith("<svg")
    # Every tensor of a block, and both networks.
    assert re.search(r"\| block \| norm1 \| attn.q .*\| residual2 \|", page)
    assert len(re.findall(r"^\| blocks\.\d (\| [\d.-]+ / [\d.-]+ ){11}\|$", page, re.M)) == 4
    notes = load_notes(out / "notes.json")
    assert "| `blocks.*.attn.softmax` | 4 | uniform 4 bits" in page
    assert {note.tensor for note in notes} >= {"*.bias", "blocks.3.attn.softmax"}


@pytest.mark.thorough
def test_a_suited_configuration(pictures, tmp_path, capsys):
    assert quantize.main(command(pictures, "--suit", "--images", "3", "-o", str(tmp_path))) == 0
    config = network_file.load(tmp_path).config
    assert (config.attention, config.attention_bits) == ("uniform", 8)
    assert "edge16-uniform8" in (tmp_path / "report.md").read_text()
    assert counts(capsys.readouterr().out)["integer"] == right(tmp_path)


def test_a_record_alone(pictures, tmp_path, capsys):
    assert quantize.main(command(pictures, "--images", "3", "-o", str(tmp_path / "r.json"))) == 0
    assert names(tmp_path) == ["r.json"]
    assert list(counts(capsys.readouterr().out)) == ["float", "simulated", "integer"]


def test_without_pictures_to_measure(pictures, tmp_path, capsys):
    given = command(pictures, "--images", "3", "-o", str(tmp_path / "out"))
    place = given.index("--evaluate")
    assert quantize.main(given[:place] + given[place + 2:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("deployed    8.00 bits a weight, ") and len(lines) == 2
    assert lines[1] == f"results: {tmp_path / 'out'}"
    assert names(tmp_path / "out") == FILES
    assert "Accuracy" not in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("lost", [None, thorough("model.json"), thorough("notes.json")])
def test_a_killed_run_goes_on(pictures, tmp_path, capsys, monkeypatch, lost):
    given = command(pictures, "--images", "3", "-o", str(tmp_path))
    count = quantize.right

    def killed(model, *arguments):
        if isinstance(model, torch.nn.Module):
            return count(model, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quantize, "right", killed)
        assert quantize.main(given) == 130
    assert names(tmp_path) == [*KEPT, "record.json.progress"]
    seen = capsys.readouterr().out
    if lost:
        (tmp_path / lost).unlink()
    observed = []
    kind = METHODS["minmax"]
    monkeypatch.setattr(kind, "observe", lambda *given, old=kind.observe, **more: (
        observed.append(1), old(*given, **more))[1])
    assert quantize.main(given) == 0
    assert len(observed) == (0 if lost is None else 1)
    after = capsys.readouterr()
    assert "goes on with" in after.err
    assert counts(after.out).items() >= counts(seen).items()
    assert counts(after.out)["integer"] == right(tmp_path)
    assert names(tmp_path) == FILES


@pytest.mark.parametrize(("more", "message"), [
    (("--config", "edge7"), "no configuration 'edge7'"),
    (("--config", "small.toml"), "max_keys must be at least 50"),
    (("--weights", "8", "--config", "narrow.toml"), "weight_bits must be at least 8")])
def test_a_configuration_that_can_not_run_it(pictures, tmp_path, capsys, monkeypatch, more,
                                             message):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text("max_keys = 16\n")
    Path("narrow.toml").write_text("weight_bits = 4\n")
    assert quantize.main(command(pictures, "--images", "3", *more, "-o", "out")) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
    assert not Path("out").exists()
