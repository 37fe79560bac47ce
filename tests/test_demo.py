# SPDX-License-Identifier: Apache-2.0
"""The demo: its page holds what was measured, and bad input gets one line."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.demo import __main__ as demo
from examples.demo import blocks, clock, pictures
from examples.demo.__main__ import main
from gen.compiler.timeline import busy
from golden.data import mnist
from golden.machine.cycles import Prediction
from hw.units import UNITS
from sim.accelerator import check
from sim.cases.trace import Cycle
from vitforge.spec.config import load

ROOT = Path(__file__).parents[1]


@pytest.mark.rtl
@pytest.mark.synth
@pytest.mark.parametrize("units", [("systolic",),
                                   pytest.param(UNITS, marks=pytest.mark.slow)], ids=len)
@pytest.mark.thorough
def test_the_page_shows_the_digit_and_every_unit(tmp_path, capsys, monkeypatch, units):
    assert set(units) <= set(UNITS) == set(demo.UNITS)
    monkeypatch.setattr(demo, "UNITS", units)
    monkeypatch.setattr(check, "_BRIEF", 10 ** 6)   # this model is there, or others want it
    image = mnist.sample().test.images[3].numpy()
    np.save(tmp_path / "digit.npy", image)
    assert main(["--image", str(tmp_path / "digit.npy"), "--config", "tiny",
                 "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    label = int(mnist.sample().test.labels[3])
    assert f"the accelerator says {label}, the float network {label}, the label is {label}" \
        in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 4 and page.count("<img") == 1
    cycles = int(re.search(r"([\d,]+) cycles from start to interrupt, all predicted", page)[1]
                 .replace(",", ""))
    first = re.search(r"<h1>(.*)</h1>", page)[1]
    # Nobody measured the clock of `tiny`.
    assert first == (f"A handwritten digit in {cycles / 1e5:.2f} ms: {1e8 / cycles:,.0f} images a "
                     "second at 100 MHz") and "Nobody measured" in page
    assert f'<div class="verdict">{label}</div>' in page
    assert not re.search(r"(src|href)=.http", page), "self-contained"
    # The shares of the blocks are those of the counters.
    busy, share = re.search(r"array busy, padding included</td><td>([\d,]+)</td><td>([\d.]+ ?%)",
                            page).groups()
    assert f"systolic array: {share}, cycles in which" in page
    assert int(busy.replace(",", "")) / cycles == pytest.approx(float(share[:-1]) / 100, abs=1e-4)
    assert "prefers-color-scheme:dark" in page
    for unit in units:
        cells = re.search(rf"<td>{unit}</td>(.*?)</tr>", page, re.DOTALL).group(1)
        numbers = [int(n.replace(",", "")) for n in re.findall(r"<td>([\d,]+)</td>", cells)]
        cases, cycles, words, mismatches, _, lut, _, ff = numbers[:8]
        assert cases > 8 and cycles > words > 1000 and mismatches == 0 and lut > 100 and ff > 100


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((27, 28), np.uint8), r"\(1, 28, 28\), not \(1, 27, 28\)"),
    (np.zeros((28, 28), np.float32), r"must be a grey image of uint8.*not float32"),
    (np.zeros((28, 28, 3), np.uint8), r"must be a grey image of uint8.*\[28, 28, 3\]"),
])
def test_an_image_that_cannot_be_used_gets_one_line(tmp_path, capsys, array, message):
    np.save(tmp_path / "bad.npy", array)
    assert main(["--image", str(tmp_path / "bad.npy"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("image", "message"), [
    ("300", "the image must be one of 0 to 299, not 300"),
    ("missing.npy", "can't read the image missing.npy"),
    (__file__, "is not a .npy file of numbers"),
])
def test_an_image_that_is_not_there_gets_one_line(tmp_path, capsys, image, message):
    assert main(["--image", image, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shipped_digits_come_ten_in_a_row_and_a_file_alone(tmp_path):
    images = mnist.sample().test.images
    assert torch.equal(demo._images(Namespace(image="0", count=10)), images[:10])
    assert torch.equal(demo._images(Namespace(image="297", count=10)), images[297:])
    np.save(tmp_path / "digit.npy", images[5].numpy())
    found = demo._images(Namespace(image=str(tmp_path / "digit.npy"), count=10))
    assert torch.equal(found, images[5:6])
    assert demo._labels(found) == [int(mnist.sample().test.labels[5])]
    assert demo._labels(255 - found) == [None]
    with pytest.raises(ValueError, match="count must be 1 to 20, not 0"):
        demo._images(Namespace(image="0", count=0))


def test_clocks_are_those_that_the_readme_says():
    """Who measures anew changes both."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, mhz in clock.MEASURED.items():
        assert f"`{name}` reaches {mhz:.1f} MHz on {clock.PART}" in readme
        assert clock.measured(load(name)) == mhz
    assert clock.measured(load("tiny")) is None


def test_an_engine_is_busy_in_cycles_that_are_counted_once():
    found = Prediction(cycles=100, array_busy=60, read_bytes=160, written_bytes=0, spans=[
        ("weights", 0, 9, 0), ("weights", 5, 14, 1), ("keys", 10, 19, 2), ("drain", 30, 39, 0),
        ("load", 50, 50, 0)])
    assert busy(found, "weights") == 15 and busy(found, "weights", "keys") == 20
    shares = blocks.shares(found, load("edge8"))
    assert shares == {"bus master": 0.2, "placer": 0.01, "weight source": 0.2,
                      "operand path": 0.6, "systolic array": 0.6, "drain": 0.1}
    assert shares.keys() == blocks.ENGINES.keys()
    picture = blocks.draw(shares)
    for name, share in shares.items():
        assert f"{name}: {share:.2%}, {blocks.ENGINES[name]}" in picture
    assert "%" not in blocks.draw()


def test_the_systolic_picture_has_a_bar_for_every_run_of_cycles():
    def cycle(offer, ready, accept=True):
        return Cycle(offer={"w": offer}, payload={"w": 0}, accept={"o": accept},
                     ready={"w": ready}, valid={"o": False}, result={"o": 0})

    text = pictures.timeline([cycle(True, True), cycle(True, True), cycle(True, False),
                              cycle(False, True), cycle(True, True)])
    assert re.findall(r"<title>(.*?)</title>", text) == [
        "cycles 0 to 1: a word moves", "cycles 2 to 2: a word waits", "cycles 4 to 4: a word moves"]
    assert "weight rows" in text and "partial sums" in text
