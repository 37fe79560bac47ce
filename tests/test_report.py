# SPDX-License-Identifier: Apache-2.0
"""What a report measures: signal to noise of every tensor, bytes, reach of codes."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import Tensor

from golden.commands.report import report
from golden.commands.report_figures import FIGURES, figures
from golden.commands.report_layers import noise, observed
from golden.deploy.network import deploy
from golden.deploy.widths import weight_bytes
from golden.float.models import Preprocessing
from golden.float.vit import Vit, VitSpec
from golden.network.integers import Network
from golden.ptq import METHODS
from golden.ptq.folding import network as with_parameters
from golden.ptq.formats import TensorFormat
from golden.ptq.method import apply
from golden.ptq.record import Record
from golden.ptq.sites import sites
from golden.ptq.statistics import Statistics
from vitforge.spec.config import load

SPEC = VitSpec(image_size=16, patch_size=4, in_channels=1, classes=3, dim=16, depth=3, heads=2,
               mlp_hidden=24)
HOW = Preprocessing(size=16, crop=1.0, interpolation="bicubic", mean=(0.5,), std=(0.5,))


def images(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 1, 16, 16), generator=generator) / 127.5 - 1


@pytest.fixture(scope="module")
def model() -> Vit:
    return Vit(SPEC).initialize(3).eval()


@pytest.fixture(scope="module")
def quantized(model) -> tuple[Statistics, Record, Network]:
    method = METHODS["fq-vit"]()
    statistics = method.observe(model, [images(8)])
    record = method.decide(statistics)
    return statistics, record, deploy(model, record, load("tiny"), statistics=statistics,
                                      preprocessing=HOW)[0]


def test_every_site_is_measured_twice(model, quantized):
    _, record, whole = quantized
    found = noise(model, apply(model, record), images(2), integer=whole, how=HOW)
    assert list(found) == [site.name for site in sites(model)][1:]
    assert all(list(pair) == ["simulated", "integer"] for pair in found.values())
    # Early tensors have little noise, and the integer network's is the simulation's.
    for name, least, close in (("embedding", 36, 1.5), ("blocks.0.norm1", 33, 1.5),
                               ("blocks.0.attn.q", 30, 3), ("blocks.0.attn.k", 30, 3),
                               ("blocks.0.attn.v", 30, 3), ("blocks.0.attn.scores", 24, 3)):
        pair = found[name]
        assert pair["simulated"] > least
        assert abs(pair["integer"] - pair["simulated"]) < close, name
    assert all(pair["integer"] > 5 for pair in found.values())


def test_noise_is_the_ratio_of_powers(model):
    changed = with_parameters(model, {"head.weight": model.head.weight.detach()})
    changed.norm.bias.data += 0.25
    found = noise(model, changed, images(3))
    values = observed(model, images(3))["norm"][:, :1]
    wanted = 10 * math.log10(float(values.square().sum()) / (values.numel() / 16))
    assert found["norm"] == {"simulated": pytest.approx(wanted, abs=1e-3)}
    assert found["blocks.2.residual2"]["simulated"] > 1000   # equal


def test_bytes_of_weights(quantized):
    _, _, whole = quantized
    layers = 16 * 16 + 3 * (16 * 48 + 16 * 16 + 2 * 16 * 24) + 16 * 3
    assert weight_bytes(whole) == layers

    def with_head(head: Tensor) -> Network:
        return dataclasses.replace(whole, weights=whole.weights | {"head": head})

    head = whole.weights["head"]
    assert weight_bytes(with_head(head.clamp(-4, 3))) == layers - 48 * 5 // 8
    # Bytes of a layer are whole.
    assert weight_bytes(with_head(head[:, :1].clamp(-4, 3))) == layers - 48 + 6
    for low, high, bits in ((-2, 1, 2), (-3, 1, 3), (-2, 2, 3), (0, 0, 2), (-128, 0, 8)):
        head = torch.tensor([[low] * 8 + [high] * 8]).T
        assert weight_bytes(with_head(head)) == layers - 48 + 2 * bits


@pytest.mark.thorough
def test_pictures(model, quantized):
    _, record, _ = quantized
    seen = observed(model, images(2))
    parameters = {"blocks.1.norm1.weight": 3 * model.blocks[1].norm1.weight.detach()}
    rescaled = observed(with_parameters(model, parameters), images(2))
    found = figures(model, record, seen, rescaled)
    assert found.keys() == FIGURES.keys()
    for text in found.values():
        ElementTree.fromstring(text)
        assert "blocks.1" in text
    assert ">codes<" in found["stream.svg"] and ">rescaled<" in found["norm.svg"]
    plain = figures(model, record, seen, seen)
    assert ">rescaled<" not in plain["norm.svg"]
    # Tensors without a format, and per-channel ones, have no codes to show.
    bare = dataclasses.replace(record, formats={"blocks.1.residual1": TensorFormat(
        kind="uniform", bits=8, scale=(0.1,) * 16)})
    found = figures(model, bare, seen, seen)
    assert ">codes<" not in found["stream.svg"]
    assert len(found["attention.svg"]) < len(plain["attention.svg"])


def test_a_page(quantized):
    _, record, whole = quantized
    page = report("name", record, whole, (), {}, {
        "embedding": {"simulated": 1.25}, "blocks.0.norm1": {"simulated": 2.0, "integer": -3.04},
        "blocks.1.norm1": {"simulated": 4.0}, "blocks.1.attn.q": {"integer": 5.0}},
        {"a.svg": "Caption"})
    assert "# fq-vit on name" in page and "\n![Caption](a.svg)\n" in page
    assert "\nembedding: 1.2\n" in page
    assert ("| block | norm1 | attn.q |\n| --- | --- | --- |\n| blocks.0 | 2.0 / -3.0 |  |\n"
            "| blocks.1 | 4.0 | 5.0 |\n") in page
    assert re.search(r"Configuration tiny \([0-9a-f]{8}\), attention in log2 codes of 4 bits", page)
    assert "Signal to noise" not in report("name", record, whole, (), {})
