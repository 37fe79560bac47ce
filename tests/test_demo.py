# SPDX-License-Identifier: Apache-2.0
"""The demo: its page holds what was measured, and bad input gets one line."""

import re

import numpy as np
import pytest

from examples.demo import __main__ as demo
from examples.demo.__main__ import main
from golden.data import mnist
from hw.units import UNITS
from sim.accelerator import check


@pytest.mark.rtl
@pytest.mark.synth
@pytest.mark.parametrize("units", [("softmax", "systolic"),
                                   pytest.param(UNITS, marks=pytest.mark.slow)], ids=len)
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
    assert page.count("<svg") == 4
    assert "cycles from start to interrupt, all predicted" in page
    assert not re.search(r"(src|href)=.http", page), "self-contained"
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
