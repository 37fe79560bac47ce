# SPDX-License-Identifier: Apache-2.0
"""Two weights a multiplier in the accelerator: programs, the golden machine, and the Verilog."""

import dataclasses

import numpy as np
import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.listing import listing
from gen.compiler.steps import pass_fields
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import predict
from golden.machine.execute import execute
from golden.machine.pairs import join_pairs, split_pairs
from golden.machine.program import Fault, Instruction, assemble, parse, read_logits
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from tests import random_passes
from tests.sample import later
from tests.test_not_square import PASSES, SPECS, Work, compare, named, of_passes, outcomes
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import LINE, MODES, OPCODES, OPERATIONS, PARAMETER, PASS
from vitforge.spec.pass_fields import pass_words
from vitforge.spec.register_map import FAULTS

TINY = dataclasses.replace(load("tiny"), name="tiny-pair", modes="single+pair")
SHAPES = [TINY, dataclasses.replace(TINY, name="tiny4x8-pair", cols=8,
                                    drain_products="luts"),
          dataclasses.replace(TINY, name="tiny8x8-pair", rows=8, cols=8, axi_bits=128)]
PAIR = MODES["pair"]


def network(spec: VitSpec, config: Config, gelu: str = "uniform", **widths: int) -> Network:
    """Calibrate a random network with weights of 4 bits, or of other widths in some layers.

    A channel of every GeLU is much louder than the others, so two-scale codes have a large m.
    """
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    names = {f"{layer}.{part}": widths.get(part, 4) for layer in
             (f"blocks.{number}" for number in range(spec.depth))
             for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    names |= {name: widths.get(name, 4) for name in ("patch_embed.proj", "head")}
    model = Vit(spec).initialize(7).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("mlp.fc1.weight"):
                weight[0] *= 40
    return calibrate(model, images, config, names, gelu=gelu)


def of_network(integers: Network) -> Work:
    """Compile a network; the golden machine's logits are the network's."""
    spec, config = integers.spec, integers.config
    compiled = compile_network(integers)
    images = torch.randint(256, (1, spec.in_channels, spec.image_size, spec.image_size),
                           generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    image = input_buffer(images, compiled)
    run = execute(compiled.program, image, config, compiled.output_bytes)
    assert read_logits(run.output, spec.classes, config).tolist() \
        == inference.run(integers, images)[0].tolist()
    return Work(compiled.program, image, run.output)


def works(config: Config) -> list[Work]:
    """Networks whose layers are all of pairs, or some."""
    return [of_network(network(SPECS[0], config)),
            of_network(network(SPECS[1], config, **{"mlp.fc1": 8, "attn.proj": 3})),
            of_network(network(SPECS[1], config, "two-scale", head=8)),
            of_network(network(SPECS[2], config, **{"attn.qkv": 5}))]


@pytest.mark.rtl
@pytest.mark.parametrize("config", [later(SHAPES[0]), SHAPES[1], later(SHAPES[2])], ids=named)
@pytest.mark.thorough
def test_networks_and_random_passes_are_exact(config: Config) -> None:
    compare(config, [*works(config), *(of_passes(config, seed, 40) for seed in range(PASSES))])


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_many_random_passes_are_exact(config: Config) -> None:
    compare(config, [of_passes(config, seed, 80) for seed in range(100, 160)])


@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_random_passes_are_of_all_kinds(config: Config) -> None:
    seen = set()
    for seed in range(PASSES):
        before = None
        for item in parse(random_passes.program(config, seed, 40)[0], config):
            if item.kind == "PASS":
                fields = item.fields
                seen.add((fields["mode"], pass_words(fields, config)))
                seen.add((fields["mode"], OPERATIONS["raw"] == fields["operation"], "raw"))
                seen.add(("from", before, "to", fields["mode"]))
                before = fields["mode"]
    wide = config.cols // config.rows
    assert {(0, words) for words in range(1, wide + 1)} <= seen
    assert {(PAIR, words) for words in range(1, 2 * wide + 1)} <= seen
    assert {(mode, raw, "raw") for mode in (0, PAIR) for raw in (False, True)} <= seen
    assert {("from", one, "to", two) for one in (0, PAIR) for two in (0, PAIR)} <= seen


@pytest.mark.parametrize(("rows", "cols", "lanes"), [
    (4, 4, 2), (4, 4, 1), (8, 8, 4), (8, 16, 4), (16, 16, 4), (16, 32, 8), (32, 32, 8)])
def test_logits_are_the_networks_on_any_shape(rows: int, cols: int, lanes: int) -> None:
    config = dataclasses.replace(TINY, rows=rows, cols=cols, lanes=lanes)
    for spec in SPECS:
        if lanes <= spec.patch_size:
            of_network(network(spec, config))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_pairs_are_elements_of_the_stream(bits: int) -> None:
    config = dataclasses.replace(TINY, packed_weight_bits=bits)
    top = (1 << bits - 1) - 1
    values = np.arange(-top, top + 1, dtype=np.int8)
    lower, upper = (part.reshape(-1, 1) for part in np.meshgrid(values, values))
    weights = np.concatenate((np.tile(lower, 4), np.tile(upper, 4)), 1)
    elements = join_pairs(weights, config)
    assert elements.shape == (len(weights), 4)
    assert (elements[:, 0] == upper[:, 0] * (1 << bits) + lower[:, 0]).all()
    assert (split_pairs(elements, 8, config) == weights).all()
    # Where a pass has fewer channels than columns, or a few more, the others are 0.
    assert (join_pairs(weights[:, :4], config) == lower).all()
    assert (split_pairs(join_pairs(weights[:, :6], config), 6, config) == weights[:, :6]).all()
    with pytest.raises(ValueError, match=f"weights of pairs must lie in -{top}..{top}, not -"):
        join_pairs(np.full((1, 8), -top - 1, np.int8), config)


def _pass(config: Config, weights: np.ndarray | None, **given: int) -> Instruction:
    channels = (given.get("words", 0) + 1) * config.rows
    fields = {"operation": OPERATIONS["raw"], "destination": 3, "tokens": 1, "tiles": 1,
              "weight_bits": 8, "bits": 8}
    return Instruction("PASS", pass_fields(**fields | given), None,
                       {item.name: np.zeros(channels, np.int64) for item in PARAMETER.fields},
                       weights)


def _raised(config: Config, item: Instruction) -> Fault:
    program = assemble([item, Instruction("END", {})], config)
    with pytest.raises(Fault) as caught:
        execute(program, bytes(LINE), config, LINE)
    return caught.value


def _lacking(config: Config) -> list[dict[str, int]]:
    """Fields of passes that no array of pairs has."""
    wide = config.cols // config.rows
    return [{"mode": 2}, {"mode": 3}, {"mode": PAIR, "stationary": 1}, {"words": wide},
            {"mode": 0, "words": 2 * wide - 1}, {"mode": PAIR, "words": 2 * wide},
            {"mode": PAIR, "words": 15}]


def _with_fields(config: Config, changes: dict[str, int]) -> bytes:
    """Return a program of one pass, whose instruction is then given other fields."""
    item = _pass(config, np.zeros((1, config.rows, config.rows), np.int8))
    values = {field.name: [0] for field in PASS.fields}
    values |= {name: [value] for name, value in (dict(item.fields) | changes).items()}
    values["opcode"] = [OPCODES["PASS"]]
    head = PASS.pack(values)[0].to_bytes(LINE, "little")
    return head + assemble([item, Instruction("END", {})], config)[LINE:]


@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_what_the_array_lacks_is_a_bad_field(config: Config) -> None:
    for changes in _lacking(config):
        with pytest.raises(Fault, match="bad field") as caught:
            list(parse(_with_fields(config, changes), config))
        assert caught.value.checked and caught.value.instruction == 0, changes


@pytest.mark.rtl
@pytest.mark.parametrize("config", [later(SHAPES[0]), SHAPES[1]], ids=named)
@pytest.mark.thorough
def test_what_the_array_lacks_is_a_fault_of_the_hardware(config: Config) -> None:
    programs = [_with_fields(config, changes) for changes in _lacking(config)]
    good = _with_fields(config, {"mode": PAIR, "words": 0})
    found = outcomes(config, [Work(program, bytes(LINE), bytes(LINE))
                              for program in (*programs, good)])
    assert [outcome.FAULT for outcome, _ in found] == [FAULTS["bad field"]] * len(programs) + [0]


def test_a_mode_does_not_count_without_pairs() -> None:
    single = load("tiny")
    weights = np.arange(16, dtype=np.int8).reshape(1, 4, 4)
    for mode in range(4):
        program = assemble([_pass(single, weights, mode=mode), Instruction("END", {})], single)
        items = list(parse(program, single))
        assert items[0].weights is not None and (items[0].weights == weights).all()


def test_what_does_not_fit_a_pair_has_no_meaning() -> None:
    # Element -128 is the weight -8 above 0.
    item = _pass(TINY, np.zeros((1, 4, 8), np.int8), mode=PAIR, words=1)
    program = bytearray(assemble([item, Instruction("END", {})], TINY))
    program[2 * LINE] = 0x80
    with pytest.raises(Fault, match=r"weights of pairs must lie in -7\.\.7") as caught:
        execute(bytes(program), bytes(LINE), TINY, LINE)
    assert not caught.value.checked
    # Log2 codes of 4 bits are powers of two up to 2**15; code 0 is the largest.
    wide = _pass(TINY, np.zeros((1, 4, 8), np.int8), mode=PAIR, words=1, operand_format=2,
                 operand_bits=4)
    fault = _raised(TINY, wide)
    assert "operands of pairs must fit 9 bits" in str(fault) and not fault.checked


def _passes(compiled: Compiled, layer: str) -> list[tuple[int, int, int]]:
    found = [item.fields for item in compiled.instructions if item.kind == "PASS"]
    return [(fields["mode"], fields["words"] + 1, fields["weight_bits"])
            for step, fields in zip(compiled.steps, found, strict=True) if step.layer == layer]


def test_layers_that_fit_have_pairs() -> None:
    compiled = compile_network(network(SPECS[1], TINY, **{"mlp.fc1": 3, "attn.qkv": 5}))
    # 18 channels are 5 words of 4; the last has no other to go with.
    assert _passes(compiled, "blocks.0.attn.proj") == [(1, 2, 8), (1, 2, 8), (0, 1, 4)]
    assert _passes(compiled, "blocks.1.mlp.fc1") == [(1, 2, 7)] * 3
    assert _passes(compiled, "blocks.1.mlp.fc2")[:2] == [(1, 2, 8)] * 2
    # Heads of 6 channels are 2 words, of weights that are too wide.
    assert _passes(compiled, "blocks.0.attn.qkv") == [(0, 1, 5)] * 18
    assert {mode for mode, _, _ in _passes(compiled, "blocks.0.attn.scores")} == {0}
    assert {mode for mode, _, _ in _passes(compiled, "head")} == {0}


def test_logits_are_of_pairs_where_their_lines_are_whole() -> None:
    config = dataclasses.replace(TINY, rows=16, cols=16, lanes=4)
    spec = dataclasses.replace(SPECS[2], classes=70)
    compiled = compile_network(network(spec, config))
    assert _passes(compiled, "head") == [(1, 2, 8), (1, 2, 8), (0, 1, 4)]
    assert compiled.output_bytes == 5 * LINE
    of_network(network(spec, config))


def test_the_listing_says_modes_and_what_a_format_costs() -> None:
    config = dataclasses.replace(TINY, rows=8, cols=8)
    slow, fast = (compile_network(network(SPECS[1], config, gelu))
                  for gelu in ("two-scale", "uniform"))
    rows = [line.split() for line in listing(slow).splitlines()]
    modes = {row[0]: row[-2:] for row in rows if len(row) > 8 and row[0].startswith("blocks.")}
    assert modes["blocks.0.mlp.fc1"] == ["pair", "128"]
    assert modes["blocks.0.mlp.fc2"] == modes["blocks.0.attn.scores"] == ["single", "64"]
    costs = [line for line in listing(slow).splitlines() if "no pairs of weights" in line]
    fc2 = [line for line in costs if line.startswith("blocks.0.mlp.fc2: two-scale operands up to")]
    # 10 tokens, 22 channels in 3 tiles, 18 channels out: 3 passes in place of 2.
    assert len(fc2) == 1 and fc2[0].endswith(": 30 cycles more")
    assert not [line for line in listing(fast).splitlines() if "mlp" in line and "pairs" in line
                and "more" in line]
    # What isn't there for a choice isn't in the listing.
    single = compile_network(network(SPECS[1], dataclasses.replace(config, modes="single")))
    assert "products a cycle" not in listing(single)
    assert predict(fast.program, config).array_busy < predict(single.program,
                                                              single.config).array_busy
