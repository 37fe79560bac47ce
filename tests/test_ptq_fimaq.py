# SPDX-License-Identifier: Apache-2.0
"""FIMA-Q and APHQ-ViT: their formats; how they are trained is in test_reconstruction.py."""

import pytest
import torch

from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.ptq.aphq import Aphq, AphqSettings
from golden.ptq.fimaq import FimaQ, FimaQSettings, range_search
from golden.ptq.formats import simulate
from golden.ptq.mptq import Mptq, MptqSettings
from golden.ptq.ranges import affine
from golden.ptq.repqvit import RepqVitSettings
from golden.ptq.tsptq import Tsptq, TsptqSettings


def test_the_grid_search_is_the_best_of_its_grid():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).abs().double() ** 3
    found = range_search(x, 3, 50)
    low, high = float(x.min()), float(x.max())
    errors = [float((simulate(x, affine(low * share, high * share, 3)) - x).square().mean())
              for share in torch.linspace(1, 0.01, 50).tolist()]
    assert float((simulate(x, found) - x).square().mean()) == pytest.approx(min(errors))
    assert float(found.scale) < high / 7


@pytest.mark.parametrize("method", [FimaQ(FimaQSettings(weights=4, activations=3)),
                                    Aphq(AphqSettings(weights=4, activations=3))])
def test_every_operand_is_uniform_and_weights_are_symmetric(method):
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    statistics = method.observe(model, [sample.calibration.images[:16].float()[:, None] / 255])
    record = method.decide(statistics)
    assert {item.kind for item in record.formats.values()} == {"uniform"}
    assert record.formats["blocks.0.attn.softmax"].bits == 3
    assert record.formats["blocks.0.attn.softmax"].zero_point == 0
    for name, item in record.formats.items():
        assert "residual" not in name and "scores" not in name
        if name.endswith("weight"):
            assert item.signed and item.zero_point == 0 and item.bits == 4
        else:
            assert not isinstance(item.scale, tuple)
    assert record.method == method.name and record.settings["candidates"] == 100


def test_candidates_out_of_range_are_refused():
    with pytest.raises(ValueError, match="candidates must be at least 1"):
        FimaQSettings(candidates=0)


def test_weight_quantiles_are_those_of_the_official_code():
    assert RepqVitSettings().weight_shares == (0.999, 0.9999, 0.99999)


@pytest.mark.parametrize(("kind", "settings"), [(Tsptq, TsptqSettings), (Mptq, MptqSettings)])
def test_operands_only_leaves_the_stream_in_floating_point(kind, settings):
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    method = kind(settings(operands_only=True, weights=4, activations=4, stream=4))
    record = method.decide(
        method.observe(model, [sample.calibration.images[:16].float()[:, None] / 255]))
    whole = kind(settings(weights=4, activations=4, stream=4))
    more = whole.decide(whole.observe(
        model, [sample.calibration.images[:16].float()[:, None] / 255]))
    left = set(more.formats) - set(record.formats)
    assert left and all("residual" in name or "scores" in name or name == "embedding"
                        for name in left)
    assert {"blocks.0.norm1", "blocks.0.attn.q", "blocks.0.mlp.act"} <= set(record.formats)
