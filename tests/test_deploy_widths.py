# SPDX-License-Identifier: Apache-2.0
"""Widths of integer networks, of all methods: weights, and the codes of images that are run."""

import dataclasses

import pytest
import torch
from torch import Tensor

from gen.compiler.compile import compile_network
from golden.deploy.network import deploy, suited
from golden.deploy.widths import signed_bits, stored_widths, weight_bytes
from golden.float.models import Preprocessing
from golden.float.vit import Vit, VitSpec
from golden.network import inference
from golden.network.inference import Call
from golden.network.integers import Network
from golden.ptq import METHODS
from golden.ptq.record import Record
from golden.ptq.statistics import Statistics
from vitforge.spec.config import load

SPEC = VitSpec(image_size=16, patch_size=4, in_channels=3, classes=5, dim=16, depth=2, heads=2,
               mlp_hidden=24)
HOW = Preprocessing(size=16, crop=1.0, interpolation="bicubic", mean=(0.4, 0.5, 0.6),
                    std=(0.2, 0.3, 0.25))
#: Those of the methods that decide weights which the array doesn't have, as in their papers.
PAPERS = {"repq-vit": {"symmetric": False}, "erq": {"symmetric": False, "dual": True},
          "dopq-vit": {"symmetric": False}}
CASES = [(name, bits, {}) for name in METHODS for bits in (3, 4, 6)] + [
    (name, bits, more) for name, more in PAPERS.items() if name in METHODS for bits in (3, 4)]
by_case = pytest.mark.parametrize(("name", "bits", "more"), CASES, ids=str)


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 16, 16), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def model() -> Vit:
    found = Vit(SPEC).initialize(3).eval()
    with torch.no_grad():   # weights and LayerNorms that few bits clip
        for name, value in found.named_parameters():
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(5))
            if "norm" in name or name.endswith("bias"):
                value += 0.3 * noise
            elif value.ndim == 2:
                value *= 1 + noise.abs() ** 2
    return found


@pytest.fixture(scope="module")
def deployed(model):
    """Record, notes and integer network of a method, made once."""
    known: dict[str, tuple[Record, tuple, Network]] = {}

    def make(name: str, bits: int, more: dict[str, object]):
        key = f"{name} {bits} {more}"
        if key not in known:
            kind = METHODS[name]
            settings = kind().settings
            # FQ-ViT's exponential has no scores of so few bits.
            stream = {"stream": bits} if settings.stream and name != "fq-vit" else {}
            chosen = kind(dataclasses.replace(settings, weights=bits, activations=bits,
                                              attention=min(bits, 4), **stream, **more))
            mean, std = (torch.tensor(values)[:, None, None] for values in (HOW.mean, HOW.std))
            seen: Statistics = chosen.observe(
                model, iter(((images(12, 1) / 255 - mean) / std).split(6)))
            record = chosen.decide(seen)
            whole, notes = deploy(model, record, suited(load("tiny"), record), statistics=seen,
                                  preprocessing=HOW)
            known[key] = record, notes, whole
        return known[key]

    return make


@by_case
def test_weights_are_symmetric_and_of_the_decided_bits(deployed, name, bits, more):
    record, notes, whole = deployed(name, bits, more)
    for layer, weights in whole.weights.items():
        assert int(weights.abs().max()) <= (1 << bits - 1) - 1, layer
        # The whole range is used, and the format says the width.
        assert signed_bits(weights) == record.formats[f"{layer}.weight"].bits == bits, layer
        assert whole.formats.get(f"{layer}.weight", record.formats[f"{layer}.weight"]).bits == bits
    for note in notes:
        if note.tensor.endswith(".weight"):
            assert f" {bits} bits" in note.deployed
    assert stored_widths(whole).weight == bits
    assert weight_bytes(whole) == sum(-(-item.numel() * bits // 8)
                                      for item in whole.weights.values())
    # They are what the program streams.
    compiled = compile_network(whole)
    assert {item.fields["weight_bits"] for item in compiled.instructions
            if item.kind == "PASS" and item.weights is not None} == {bits}


def outputs(whole: Network) -> dict[str, Tensor]:
    """Codes of every tensor of an image, by name; Q, K and V on their own, less what was added."""
    found: dict[str, Tensor] = {}

    def see(call: Call) -> None:
        if call.unit == "requant" and call.name.endswith("qkv"):
            layer = call.inputs["layer"]
            parts = layer.parts or (layer.encoding,) * 3
            for part, codes, item in zip("qkv", call.output.chunk(3, -1), parts, strict=True):
                found[call.name.replace("qkv", part)] = codes - item.lowest
        elif call.unit != "systolic":
            found[call.name.replace("mlp.fc1", "mlp.act")] = call.output

    inference.run(whole, images(6, 2), see)
    return found


@by_case
def test_no_code_is_outside_of_the_decided_bits(deployed, name, bits, more):
    record, _, whole = deployed(name, bits, more)
    found, narrow = outputs(whole), 0
    for tensor, item in record.formats.items():
        if tensor.endswith(".weight") or tensor == "input":
            continue
        if not tensor.endswith((".q", ".k", ".v")):   # whose codes stand in a byte
            assert whole.formats[tensor].code_bits <= item.bits, tensor
        codes = found[tensor]
        if tensor.endswith("softmax"):   # of log-sqrt2 c is not what is multiplied
            assert len(codes.unique()) <= (1 << item.bits) + (item.kind == "log-sqrt2"), tensor
        else:
            assert 0 <= int(codes.min()) and int(codes.max()) < 1 << item.bits, tensor
            narrow += int(codes.max()) == (1 << item.bits) - 1
    assert narrow > 4   # the range is used
    widths = stored_widths(whole)
    assert widths.stream == (bits if "embedding" in record.formats and name != "fq-vit" else 8)
    assert min(bits, 4) <= widths.operand < bits + 2.5   # the picture has 8


@by_case
def test_projections_keep_step_and_zero_point(deployed, name, bits, more):
    record, notes, whole = deployed(name, bits, more)
    changed = {note.tensor for note in notes}
    for block in range(SPEC.depth):
        layer = whole.requantizations[f"blocks.{block}.attn.qkv"]
        for part, made in zip("qkv", layer.parts or (layer.encoding,) * 3, strict=True):
            tensor = f"blocks.{block}.attn.{part}"
            item, form = record.formats[tensor], whole.formats[tensor]
            assert tensor not in changed
            assert (made.bits, form.scale, made.zero_point) == (
                item.bits, item.scale, item.zero_point)
            assert made.lowest + made.zero_point == form.zero_point == 128
