# SPDX-License-Identifier: Apache-2.0
"""A method of the user's own: from a class's name to the integer network, and what is refused."""

import re
from pathlib import Path

import pytest

from examples.own_method.mean_range import MeanRange, MeanRangeSettings
from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.network import file as network_file
from golden.network import inference
from golden.ptq.record import Record

ROOT = Path(__file__).parents[1]
NAME = "examples.own_method.mean_range:MeanRange"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_digits):
    folder, sample = tmp_path_factory.mktemp("pictures"), mnist.sample()
    return (write_digits(folder / "calibration", sample.calibration, 50),
            write_digits(folder / "test", sample.test, 40))


def command(pictures, method, *more):
    return ["--method", method, "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
            "--calibration", str(pictures[0]), "--evaluate", str(pictures[1]), *more]


def test_the_example_becomes_an_integer_network(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert quantize.main(command(pictures, NAME, "--weights", "6", "--set", "margin=0.9",
                                 "--batch", "8", "-o", str(out))) == 0
    text = capsys.readouterr().out
    right = {name: int(count) for name, count in
             re.findall(r"^(float|simulated|integer) +(\d+) of 40 +[\d.]+%$", text, re.M)}
    record = Record.load(out / "record.json")
    assert record.method == "mean-range"
    assert record.settings["margin"] == 0.9 and record.settings["weights"] == 6
    assert record.formats["head.weight"].bits == 6
    split = mnist.sample().test
    few = mnist.Split(split.images[:40], split.labels[:40])
    simulated = MeanRange().apply(checkpoint.load(WEIGHTS), record)
    assert right["simulated"] == round(mnist.accuracy(simulated, few) * 40)
    logits = inference.run(network_file.load(out), few.images)
    assert right["integer"] == int((logits.argmax(1) == few.labels).sum())
    assert min(right.values()) >= right["float"] - 2 >= 36
    assert "mean-range" in (out / "report.md").read_text()


def test_its_ranges_are_what_it_says():
    images = mnist.pixels(mnist.sample().calibration.images[:30])
    method = MeanRange(MeanRangeSettings(margin=0.5))
    statistics = method.observe(checkpoint.load(WEIGHTS), images.split(10))
    name = "blocks.0.attn.q"
    seen = statistics.observed[name]
    assert len(seen.low) == 3 and float(seen.low.max()) < 0 < float(seen.high.min())
    width = 0.5 * float((seen.high - seen.low).mean())
    assert method.decide(statistics).formats[name].scale == pytest.approx(width / 255)


MODULES = {
    "broken.py": "def\n",
    "needs.py": "import no_such_package_at_all\n",
    "mine.py": """\
import dataclasses
from examples.own_method.mean_range import MeanRange
from golden.ptq.method import Method, Settings

class Other:
    name = "other"

class Undecided(Method):
    name = "undecided"

class Nameless(Method):
    settings = Settings()
    def decide(self, statistics): ...

class Bare(Nameless):
    name = "bare"
    def __init__(self, one, two): ...

class Loose(Nameless):
    name = "loose"
    def __init__(self, settings=None):
        self.settings = {}
""",
}


@pytest.mark.parametrize("name, message", [
    ("magic", "invalid choice: 'magic' .choose from minmax, .*or a package.module:Class."),
    ("a b:C", "invalid choice"),
    ("mine:", "invalid choice"),
    ("no_such_module:Mine", "there is no module 'no_such_module' in the current folder"),
    ("examples.nothing:Mine", "there is no module 'examples.nothing'"),
    ("needs:Mine", "needs needs 'no_such_package_at_all', which is not installed"),
    ("broken:Mine", "broken can't be imported: SyntaxError"),
    ("mine:Absent", "mine has no class 'Absent'"),
    ("mine:Other", "mine.Other is not a subclass of golden.ptq.method.Method"),
    ("mine:dataclasses", "mine.dataclasses is not a subclass"),
    ("mine:Undecided", "mine.Undecided lacks decide"),
    ("mine:Nameless", "mine.Nameless lacks a name"),
    ("mine:Bare", r"mine.Bare must be made as Bare\(\) and Bare\(settings\)"),
    ("mine:Loose", "settings of mine.Loose must be a dataclass"),
])
def test_what_is_no_method_is_one_line_before_anything_is_read(tmp_path, capsys, monkeypatch,
                                                              name, message):
    for file, text in MODULES.items():
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Neither the checkpoint nor the pictures exist: the method is refused first.
    assert quantize.main(command(("nowhere", "nowhere"), name, "--checkpoint", "nowhere.pth")) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error


def test_a_wrong_setting_is_one_line(pictures, capsys):
    assert quantize.main(command(pictures, NAME, "--set", "margin=9")) == 2
    assert "margin must be above 0, 4 at most, not 9" in capsys.readouterr().err


def test_another_text_of_the_method_starts_again(pictures, tmp_path, monkeypatch, capsys):
    """A killed run goes on, but not with the record that a method of another text has made."""
    source = ROOT.joinpath("examples/own_method/mean_range.py").read_text()
    (tmp_path / "mine_again.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "record.json"
    arguments = command(pictures, "mine_again:MeanRange", "--no-float", "-o", str(out))

    def killed(*_, **__):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(quantize, "right", killed)
        assert quantize.main(arguments) == 130
        assert quantize.main(arguments) == 130
    assert "goes on with" in capsys.readouterr().err
    (tmp_path / "mine_again.py").write_text(source + "# better\n")
    assert quantize.main(arguments) == 0
    assert "goes on with" not in capsys.readouterr().err


def test_the_page_shows_the_command_that_runs():
    page = ROOT.joinpath("docs/own-method.md").read_text(encoding="utf-8")
    assert f"--method {NAME} " in page and len(re.findall(r"^\d\. ", page, re.M)) == 5
    lines = ROOT.joinpath("examples/own_method/mean_range.py").read_text().splitlines()
    assert 30 <= len(lines) <= 50
