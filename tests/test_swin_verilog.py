# SPDX-License-Identifier: Apache-2.0
"""Swin on the accelerator: the golden machine's logits are the network's, and the Verilog's."""

import dataclasses

import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.fit import fit
from gen.compiler.image import Blocks
from golden.float.swin import Swin, SwinSpec
from golden.machine.execute import execute
from golden.machine.program import parse, read_logits
from golden.network import inference
from golden.network.calibrate import calibrate
from tests.sample import later, leading
from tests.test_not_square import Work, compare, named
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import OPERATIONS
from vitforge.spec.sizes import SHORT

#: 8x8 tokens in windows of 4 that are shifted, then one window; and rows of 5 odd classes.
SMALL = SwinSpec(image_size=16, patch_size=2, in_channels=2, classes=5, dim=8, depths=(2, 1),
                 heads=(1, 2), window=4)
#: Channels of several words, that are merged right behind a residual.
WIDER = dataclasses.replace(SMALL, dim=32, depths=(1, 1), heads=(2, 4))
#: Windows of 3, channels that fill no word, three stages, a head of one block.
ODD = SwinSpec(image_size=48, patch_size=4, in_channels=1, classes=11, dim=6, depths=(2, 1, 1),
               heads=(2, 1, 3), window=3, mlp_ratio=2)
ROOM = {"max_channels": 128, "max_tokens": 256, "max_keys": 64, "table_tokens": 2048,
        "scratch_words": 8192, "residual_words": 4096, "stationary_words": 2048}
#: The second is that of the project's own Swin, a stage of which goes in parts.
CONFIGS = [dataclasses.replace(load("tiny"), name="swin-tiny", **ROOM),
           dataclasses.replace(load("edge8"), name="swin-edge8", **ROOM | {
               "max_channels": 256, "max_tokens": 64, "stream_tokens": 256})]
#: Fewer tokens a pass than the first stage has: two of its windows, or three of nine tokens.
PARTS = [dataclasses.replace(config, name=f"{config.name}-parts", max_tokens=32, stream_tokens=256)
         for config in CONFIGS]
WIDE = dataclasses.replace(CONFIGS[1], name="swin-8x16", cols=16)


def compiled(spec: SwinSpec, config: Config, seed: int = 3, weights: int = 8
             ) -> tuple[Compiled, Work]:
    """Compile a network whose biases matter; the golden machine's logits are the network's."""
    generator = torch.Generator().manual_seed(seed)
    model = Swin(spec).initialize(seed).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("table"):
                value.copy_(torch.randn(value.shape, generator=generator))
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    network = calibrate(model, images, config, weights)
    found = compile_network(network)
    image = input_buffer(images[2:], found)
    run = execute(found.program, image, config, found.output_bytes)
    assert read_logits(run.output, spec.classes, config).tolist() \
        == inference.run(network, images[2:])[0].tolist()
    return found, Work(found.program, image, run.output)


@pytest.mark.parametrize("config", leading(
    2, [*CONFIGS[:1], *PARTS[:1], *CONFIGS[1:], *PARTS[1:], WIDE]), ids=named)
@pytest.mark.parametrize("spec", [SMALL, ODD], ids=["small", "odd"])
def test_logits_are_the_networks(spec: SwinSpec, config: Config) -> None:
    if spec is ODD and config.rows < SHORT:   # regions of 6 tokens
        with pytest.raises(ValueError, match="regions of 6 tokens want rows of at least 8, not 4"):
            compiled(spec, config)
        return
    compiled(spec, config)


@pytest.mark.parametrize("spec", [WIDER, ODD], ids=["wider", "odd"])
def test_two_weights_share_a_multiplier(spec: SwinSpec) -> None:
    """A pass then makes several words of a token; those of keys and copies are single."""
    found, _ = compiled(spec, dataclasses.replace(PARTS[1], name="swin-pair", modes="single+pair",
                                                  formats="uniform"), weights=4)
    modes = {step.layer: step.fields["mode"] for step in found.steps}
    assert modes["layers.0.blocks.0.mlp.fc1"] == 1 and modes["patch_embed.norm"] == 0


@pytest.mark.rtl
@pytest.mark.parametrize("config", [later(PARTS[0]), CONFIGS[1]], ids=named)
@pytest.mark.thorough
def test_the_verilog_is_the_golden_machine(config: Config) -> None:
    compare(config, [compiled(spec, config)[1] for spec in (SMALL, WIDER)])


def test_windows_are_gathered_and_biases_added() -> None:
    found, work = compiled(SMALL, CONFIGS[1])
    passes = [item.fields for item in parse(work.program, CONFIGS[1]) if item.kind == "PASS"]
    layers = {step.layer for step, fields in zip(found.steps, passes, strict=True)
              if fields["gathers"]}
    # One window needs no table; blocks of patches lie row by row as they do in the stream.
    assert layers == {f"layers.0.blocks.{n}.attn.{name}" for n in (0, 1)
                      for name in ("qkv", "proj")}
    scores = [fields for step, fields in zip(found.steps, passes, strict=True)
              if step.layer.endswith("attn.scores")]
    assert {fields["operation"] for fields in scores} == {OPERATIONS["residual"]}
    assert any(fields["offset"] != fields["d_base"] for fields in scores)
    assert {fields["tokens"] for fields in scores} == {SHORT, 16}


def test_patches_narrower_than_lanes_come_in_blocks() -> None:
    order = Blocks(SMALL, CONFIGS[1])   # patches of 2, lanes of 4
    assert (order.size, order.count, len(order.blocks)) == (2, 16, 4)
    assert sorted(order.tokens) == list(range(64)) and order.tokens[:3] == (0, 2, 4)
    for chosen in order.blocks:
        assert sorted(chosen[chosen >= 0].tolist()) == list(range(2 * 2 * 2))
    one = Blocks(SMALL, CONFIGS[0])     # lanes of 2
    assert (one.size, one.count, one.tokens) == (1, 64, tuple(range(64)))


@pytest.mark.parametrize(("changes", "message"), [
    ({"table_tokens": 0}, "table_tokens must be at least 256 for this network's tables, not 0"),
    ({"table_tokens": 255}, "table_tokens must be at least 256 for this network's tables, not 255"),
    ({"max_tokens": 63, "stream_tokens": 0}, "stream_tokens must be at least 64 for"),
    ({"max_tokens": 15}, "max_tokens must be at least 16 for this network's tokens, not 15"),
    ({"scratch_words": 16}, "scratch_words: this network needs .* bytes in the bank scratch")])
def test_a_configuration_that_is_too_small_is_refused(changes: dict[str, int],
                                                      message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(SMALL, dataclasses.replace(CONFIGS[1], **changes))   # type: ignore[arg-type]


def test_the_smallest_configuration_holds_it() -> None:
    config = fit(calibrate(Swin(SMALL).initialize(1).eval(), torch.randint(
        256, (1, 2, 16, 16)).to(torch.uint8), CONFIGS[1]))
    # Both orders of windows, and back. A pass may have more tokens than the network has.
    assert (config.table_tokens, config.max_tokens, config.max_keys) == (256, 64, 16)
    compiled(SMALL, config)
    with pytest.raises(ValueError, match="residual_words"):
        compiled(SMALL, dataclasses.replace(config, residual_words=config.residual_words - 1))
