# SPDX-License-Identifier: Apache-2.0
"""Integer networks in files: exact, refused when damaged, and taken by `gen.program`."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gen.compiler import command as program
from golden.float.vit import Vit, VitSpec
from golden.network import file as network_file
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.fast import Fast
from golden.network.file import NetworkFileError
from golden.network.integers import Network
from vitforge.spec.config import Config, load

SPEC = VitSpec(image_size=16, patch_size=8, in_channels=1, classes=3, dim=8, depth=2, heads=1,
               mlp_hidden=8)
CONFIGS = {"tiny": load("tiny"),
           "polynomial": dataclasses.replace(load("tiny"), exponential="iexp"),
           "two-scale": dataclasses.replace(load("tiny"), attention="two-scale", attention_bits=6),
           "table": dataclasses.replace(load("tiny"), attention="table")}


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 1, 16, 16), generator=generator).to(torch.uint8)


def whole(config: Config, depth: int = 2) -> Network:
    model = Vit(dataclasses.replace(SPEC, depth=depth)).initialize(3).eval()
    return calibrate(model, images(3), config)


def plain(value: Any) -> Any:
    """Everything in a value, with types, in a form that compares."""
    if isinstance(value, Tensor):
        return value.dtype, value.tolist()
    if dataclasses.is_dataclass(value):
        return type(value), [(item.name, plain(getattr(value, item.name)))
                             for item in dataclasses.fields(value)]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return type(value), value


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_written_comes_back(tmp_path, config):
    made = whole(config)
    network_file.save(tmp_path / "model.json", made, {"model": "x"})
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    for path in (tmp_path, tmp_path / "model.json", tmp_path / "model.safetensors"):
        assert plain(network_file.load(path)) == plain(made)
    assert network_file.about(tmp_path) == {"model": "x"}


def test_any_integer_comes_back(tmp_path):
    made = whole(CONFIGS["tiny"], 1)
    values = [[-128, 127], [0, 255], [-129, 0], [0, 256], [-1 << 31, 0], [0, 1 << 31],
              [-1 << 63, (1 << 63) - 1], [0, 0]]
    for pair in values:
        changed = dataclasses.replace(made, biases={"head": torch.tensor(pair)})
        network_file.save(tmp_path / "n.json", changed)
        found = network_file.load(tmp_path / "n.json").biases["head"]
        assert found.dtype == torch.int64 and found.tolist() == pair
    small = (tmp_path / "n.safetensors").stat().st_size
    head = made.weights["head"]
    wide = dataclasses.replace(made, weights={**made.weights, "head": head + (1 << 40)})
    network_file.save(tmp_path / "n.json", wide)
    # But for what the header says.
    assert 0 <= (tmp_path / "n.safetensors").stat().st_size - small - 7 * head.numel() < 64
    empty = dataclasses.replace(made, biases={"head": torch.zeros(0, dtype=torch.int64)})
    network_file.save(tmp_path / "n.json", empty)
    assert network_file.load(tmp_path / "n.json").biases["head"].shape == (0,)


def test_a_file_of_version_1_gives_the_logits_that_it_gave():
    folder = Path(__file__).parent / "data" / "network_version_1"
    assert json.loads((folder / "model.json").read_text())["version"] == 1
    found = network_file.load(folder)
    kept = json.loads((folder / "logits.json").read_text())
    pictures = torch.tensor(kept["images"], dtype=torch.uint8)
    assert inference.run(found, pictures).tolist() == kept["logits"]
    assert Fast(found)(pictures).tolist() == kept["logits"]
    # It is what calibration makes today, but for the name of a type.
    model = Vit(found.spec).initialize(3).eval()
    assert plain(found) == plain(calibrate(model, pictures, load("tiny")))


def test_norms_of_version_1_saturate_at_8_bits(tmp_path):
    """Whatever width was decided: so they did when that version was written."""
    folder = Path(__file__).parent / "data" / "network_version_1"
    content = json.loads((folder / "model.json").read_text())
    written = content["network"]
    formats, block = written["formats"]["items"], written["blocks"][0]
    for item in (formats["blocks.0.norm1"], block["qkv"]["input"], formats["norm"],
                 written["head_input"]):
        item["bits"] = 4
    (tmp_path / "model.json").write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert plain(network_file.load(tmp_path)) == plain(network_file.load(folder))


def test_a_file_of_version_1_is_written_again_as_version_2(tmp_path):
    found = network_file.load(Path(__file__).parent / "data" / "network_version_1")
    network_file.save(tmp_path / "model.json", found)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["version"] == 2 and content["network"]["topology"] == "vit"
    assert plain(network_file.load(tmp_path)) == plain(found)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        network_file.save(tmp_path / name / "model.json", whole(CONFIGS["tiny"]))
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def damage(folder: Path, what: str) -> None:
    arrays, text = folder / "model.safetensors", folder / "model.json"
    content = json.loads(text.read_text())
    match what:
        case "a bit":
            data = bytearray(arrays.read_bytes())
            data[-5] ^= 16
            arrays.write_bytes(data)
        case "truncated tensors":
            arrays.write_bytes(arrays.read_bytes()[:-9])
        case "no tensors":
            arrays.unlink()
        case "truncated text":
            text.write_text(text.read_text()[:-40])
        case "not text":
            text.write_bytes(b"\xff\xfe\x00")
        case "another version":
            text.write_text(json.dumps(content | {"version": 99}))
        case "another topology":
            content["network"]["topology"] = "mlp"
            text.write_text(json.dumps(content))
        case "a list":
            text.write_text("[1, 2]")
        case "no network":
            text.write_text(json.dumps(content | {"network": content["network"]["config"]}))
        case "an unknown type":
            content["network"]["type"] = "Path"
            text.write_text(json.dumps(content))
        case "an unknown tensor":
            content["network"]["weights"]["items"]["head"] = {"tensor": "nowhere"}
            text.write_text(json.dumps(content))
        case "a bad field":
            content["network"]["config"]["rows"] = 0
            text.write_text(json.dumps(content))
        case "a field too many":
            content["network"]["more"] = 1
            text.write_text(json.dumps(content))


DAMAGES = {"a bit": "model.safetensors is not the file", "truncated tensors": "is damaged",
           "no tensors": "can't read .*model.safetensors: No such file",
           "truncated text": "holds no integer network", "not text": "holds no integer network",
           "another version": r"holds no integer network \(version 99, not one of 1, 2\)",
           "another topology": "topology must be one of vit, swin, not 'mlp'",
           "a list": "holds no integer network",
           "no network": r"holds no integer network \(Config\)",
           "an unknown type": "holds no integer network", "an unknown tensor": "'nowhere'",
           "a bad field": "rows must be between 1 and 64", "a field too many": "more"}


@pytest.mark.parametrize(("what", "match"), DAMAGES.items(), ids=DAMAGES)
def test_damaged_files_are_refused(tmp_path, what, match):
    network_file.save(tmp_path / "model.json", whole(CONFIGS["tiny"], 1))
    damage(tmp_path, what)
    with pytest.raises(NetworkFileError, match=match) as error:
        network_file.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(NetworkFileError, match=r"can't read .*model\.json"):
        network_file.load(tmp_path)
    network_file.save(tmp_path / "model.json", whole(CONFIGS["tiny"], 1))
    with pytest.raises(NetworkFileError, match="does not name the float network"):
        network_file.about(tmp_path)


# The program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("integer")
    network_file.save(found / "model.json", whole(CONFIGS["tiny"], 1), {"model": "none"})
    return found


def test_a_program_of_a_file(folder, tmp_path, capsys):
    assert program.main([str(folder), "-o", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    memory = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert memory["config"] == "tiny"
    assert memory["logit_scale"] == network_file.load(folder).logit_scale
    # The input is random, and the same each time; the result is that of the integer network.
    config = load("tiny")
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, 1, 16, 16), generator=generator).to(torch.uint8)
    wanted = inference.run(network_file.load(folder), image)[0].tolist()
    beats = (tmp_path / "out" / "expected.hex").read_text().split()
    data = b"".join(bytes.fromhex(beat)[::-1] for beat in beats)
    offsets = memory["logit_offsets"]
    assert [int.from_bytes(data[place:place + 4], "little", signed=True)
            for place in offsets] == wanted
    assert config.axi_bits == 8 * len(bytes.fromhex(beats[0]))


def test_another_core_may_run_it(folder, tmp_path):
    wide = tmp_path / "wide.toml"
    wide.write_text('rows = 8\ncols = 8\nlanes = 2\nmax_keys = 64\nmax_channels = 64\n')
    assert program.main([str(folder / "model.safetensors"), "--config", str(wide), "-o",
                         str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "memory.json").read_text())["config"] == "wide"


@pytest.mark.parametrize(("more", "message"), [
    (("--config", "narrow.toml"), "value_bits must be 16, as when .* was made, not 18"),
    (("--weights", "8"), "--weights does not go with"),
    (("--random", "0"), "--random does not go with"),
    (("--checkpoint", "x.pth"), "--checkpoint does not go with"),
    (("--calibration", "x"), "--calibration does not go with"),
    (("--pictures", "nowhere"), "must be one of mnist_vit")])
def test_options_that_do_not_fit(folder, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    Path("narrow.toml").write_text("value_bits = 18\nrows = 4\ncols = 4\nlanes = 2\n")
    assert program.main([str(folder), *more, "-o", "out"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error
    assert not Path("out").exists()


@pytest.mark.parametrize(("name", "message"), [
    ("no/such", "can't read no/such.json"), ("no.json", "can't read no.json"),
    ("resnet50", "the network must be one of mnist")])
def test_no_such_network(tmp_path, capsys, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    assert program.main([name, "-o", "out"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
