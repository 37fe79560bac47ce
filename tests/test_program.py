# SPDX-License-Identifier: Apache-2.0
"""Programs: bytes and back, the order of an image, places, synchronisation, refusals."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gen.compiler.check import bound, hazards, operand_bound
from gen.compiler.command import input_buffer, main, memory_image
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.image import Patches
from gen.compiler.memory import DoesNotFitError, allocate
from gen.compiler.model import fold, quantized
from gen.compiler.schedule import STYLES, Style, schedule
from gen.compiler.steps import Region, minimal_bits, pass_fields
from golden.float.models import IMAGENET, lookup
from golden.float.vit import Vit, VitSpec
from golden.formats.attention import level_format
from golden.machine.cycles import predict
from golden.machine.decode import decode_any
from golden.machine.execute import PassRecord, execute
from golden.machine.program import (
    Fault,
    Instruction,
    assemble,
    output_bytes,
    pack_weights,
    parse,
    read_logits,
    unpack_weights,
)
from golden.machine.state import State
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.inference import patches
from golden.network.integers import Network
from golden.units.encoding import thresholds
from golden.units.softmax import LevelScale
from golden.units.softmax_bound import row_bound
from tests.sample import leading
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import (
    INSTRUCTIONS,
    LATE_NEVER,
    LINE,
    LOOPS,
    NORM_PARAMETER,
    OPERANDS,
    PARAMETER,
)
from vitforge.spec.softmax_widths import ShiftWidths
from vitforge.spec.words import Word

TINY = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=6, dim=8, depth=1, heads=2,
               mlp_hidden=12)


def random_network(spec: VitSpec, config: Config, seed: int = 0, images: int = 2,
                   **options: Any) -> Network:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(256, (images, spec.in_channels, spec.image_size, spec.image_size),
                          generator=generator).to(torch.uint8)
    return calibrate(Vit(spec).initialize(seed).eval(), codes, config, **options)


@pytest.fixture(scope="module")
def mnist8() -> Network:
    return quantized("mnist", load("edge8"))


@pytest.fixture(scope="module")
def compiled8(mnist8: Network) -> Compiled:
    return compile_network(mnist8)


# Bytes


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("cols", [4, 8, 16])
def test_weights_of_any_width_come_back(bits: int, cols: int) -> None:
    rng = np.random.default_rng(bits)
    weights = rng.integers(-(1 << bits - 1), 1 << bits - 1, (3, 5, cols)).astype(np.int8)
    data = pack_weights(weights, bits)
    assert len(data) == 15 * -(-cols * bits // 8)
    assert np.array_equal(unpack_weights(data, bits, cols), weights.reshape(15, cols))
    first = int.from_bytes(data[:-(-cols * bits // 8)], "little")
    for element in range(cols):
        value = int(weights[0, 0, element])
        assert first >> element * bits & (1 << bits) - 1 == value % (1 << bits)


@pytest.mark.parametrize(("bits", "value"), [(4, 8), (4, -9), (2, 2), (7, 64)])
def test_a_weight_that_does_not_fit_is_refused(bits: int, value: int) -> None:
    with pytest.raises(ValueError, match=rf"weights of {bits} bits must lie in .*not"):
        pack_weights(np.full((1, 4), value, np.int8), bits)


def random_fields(kind: str, rng: np.random.Generator) -> dict[str, int]:
    return {item.name: int(rng.integers(-(1 << item.bits - 1) if item.signed else 0,
                                        1 << item.bits - item.signed))
            for item in INSTRUCTIONS[kind].fields
            if item.name != "opcode" and not item.name.startswith("reserved")}


def random_columns(word: Word, count: int, rng: np.random.Generator) -> dict[str, Any]:
    return {item.name: rng.integers(-(1 << item.bits - 1) if item.signed else 0,
                                    1 << item.bits - item.signed, count) for item in word.fields}


def same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            np.array_equal(one[name], other[name]) for name in one)
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize(("name", "most"), [("tiny", 1), ("edge8", 1), ("edge16", 1), ("tiny", 2),
                                            ("tiny", 4), ("edge8", 2), ("edge16", 4)])
def test_instructions_come_back_with_their_blocks(name: str, most: int) -> None:
    config, rng = load(name), np.random.default_rng(1)
    config = dataclasses.replace(config, cols=most * config.rows)
    made: list[Instruction] = []
    for number in range(20):
        fields = random_fields("PASS", rng)
        tiles, bits = int(rng.integers(1, 5)), int(rng.integers(2, 9))
        fields |= {"tokens": 1 + number, "tiles": tiles, "weight_bits": bits, "operand": number % 3,
                   "statistics": 0, "operation": number % 3, "destination": number % 3,
                   "offset": 0, "bits": int(rng.integers(2, 5)),
                   "multiplier2": int(rng.integers(1 << config.factor_bits)),
                   "softmax_multiplier": int(rng.integers(1 << ShiftWidths.multiplier))}
        channels = config.cols
        if most > 1:
            fields["words"] = number % most
            channels = (number % most + 1) * config.rows
        half = 1 << bits - 1
        made.append(Instruction(
            "PASS", fields,
            random_columns(NORM_PARAMETER, tiles * config.rows, rng) if fields["has_norm"]
            else None, random_columns(PARAMETER, channels, rng),
            None if fields["stationary"] else
            rng.integers(-half, half, (tiles, config.rows, channels)).astype(np.int8),
            thresholds=tuple(rng.integers(-1 << 16, 1 << 16, 15).tolist())
            if fields["has_thresholds"] else None))
    image = random_fields("LOAD", rng) | {"inline": 0, "destination": 1, "offset": 64,
                                          "bytes": 128, "piece": config.rows.bit_length() - 1}
    image |= {f"count_{loop}": loop + 1 for loop in range(LOOPS)}
    words = image | {"inline": 1, "bytes": 3 * config.rows}
    made += [Instruction("LOAD", image),
             Instruction("LOAD", words, data=rng.bytes(3 * config.rows)), Instruction("END", {})]
    program = assemble(made, config)
    assert len(program) == sum(item.size(config) for item in made)
    assert not len(program) % LINE
    found = list(parse(program, config))
    assert [item.kind for item in found] == [item.kind for item in made]
    for one, other in zip(made, found, strict=True):
        assert one.fields == other.fields
        assert (one.data, one.thresholds) == (other.data, other.thresholds)
        for block in ("norm", "thresholds", "parameters", "weights"):
            assert same(getattr(one, block), getattr(other, block)), block


def test_reserved_bits_are_zero_and_the_opcode_comes_first(compiled8: Compiled) -> None:
    load_word = compiled8.program[:LINE]
    assert load_word[0] == 1
    values = INSTRUCTIONS["LOAD"].unpack([int.from_bytes(load_word, "little")])
    assert not any(int(values[name][0]) for name in values if name.startswith("reserved"))


@pytest.mark.parametrize(("change", "message"), [
    ({"tokens": 4096}, "instruction 0, PASS: tokens must lie in 0..4095, not 4096..4096"),
    ({"tiles": 2}, "instruction 0, PASS: weights must take 32 bytes, not 16"),
    ({"has_norm": 1}, "instruction 0, PASS: norm parameters must take 32 bytes, not 0"),
    ({"has_thresholds": 1}, "instruction 0, PASS: thresholds must take 64 bytes, not 0"),
])
def test_assemble_refuses_what_does_not_fit(change: dict[str, int], message: str) -> None:
    config = load("tiny")
    fields = pass_fields(tokens=1, tiles=1, weight_bits=8) | change
    parameters = {item.name: np.zeros(4, np.int64) for item in PARAMETER.fields}
    weights = np.zeros((1, 4, 4), np.int8)
    with pytest.raises(ValueError) as caught:
        assemble([Instruction("PASS", fields, None, parameters, weights)], config)
    assert str(caught.value) == message


def test_assemble_refuses_other_fields() -> None:
    with pytest.raises(ValueError, match="fields of END must be"):
        assemble([Instruction("END", {"tokens": 1})], load("tiny"))


def test_a_truncated_program_is_a_fault(compiled8: Compiled) -> None:
    config = compiled8.config
    for size in (0, LINE, 10 * LINE, len(compiled8.program) - LINE):
        with pytest.raises(Fault) as caught:
            list(parse(compiled8.program[:size], config))
        assert caught.value.kind == "program without end"
    whole = list(parse(compiled8.program, config))
    assert len(whole) == len(compiled8.instructions)


def test_logits_of_a_narrow_array_begin_lines() -> None:
    config = load("edge8")
    assert output_bytes(10, config) == 128
    values = np.zeros(32, "<i4")
    values[:8], values[16:18] = np.arange(8), (-8, 9)
    assert read_logits(values.tobytes(), 10, config).tolist() == [*range(8), -8, 9]
    assert output_bytes(1000, load("edge16")) == 63 * 64


# The image

SHAPES = [(4, 1, 28, 8, 4), (4, 1, 28, 16, 4), (4, 1, 28, 4, 2), (16, 3, 64, 16, 4),
          (16, 3, 64, 8, 4), (16, 3, 64, 64, 4), (2, 3, 8, 8, 2), (2, 4, 8, 16, 2),
          (12, 3, 24, 16, 4), (12, 3, 24, 32, 4), (8, 2, 16, 16, 2), (6, 3, 12, 8, 2),
          (32, 1, 32, 8, 4), (4, 5, 8, 64, 4)]


@pytest.mark.parametrize(("patch", "channels", "size", "rows", "lanes"), SHAPES)
def test_load_scatters_an_image_as_patches(patch: int, channels: int, size: int, rows: int,
                                           lanes: int) -> None:
    spec = VitSpec(image_size=size, patch_size=patch, in_channels=channels, dim=8, heads=1)
    config = Config(rows=rows, cols=rows, lanes=lanes)
    order, base = Patches(spec, config), 5
    image = torch.randint(256, (1, channels, size, size),
                          generator=torch.Generator().manual_seed(size))
    data = image.to(torch.uint8).numpy().tobytes()
    assert order.bytes == -(-len(data) // LINE) * LINE
    state = State(config)
    state.banks["scratch"][:] = -1
    state.load(order.load(base), data.ljust(order.bytes, b"\0"), 0)
    bank = state.banks["scratch"]
    tiles, tokens = order.tiles, spec.tokens
    words = bank[base:base + tiles * tokens].reshape(tiles, tokens, rows).transpose(0, 1)
    found = words.reshape(tokens, -1)
    real = order.order >= 0
    assert sorted(order.order[real]) == list(range(spec.patch_values))
    assert torch.equal(found[1:, real], patches(image, spec)[0][:, order.order[real]])
    assert bool((found[:1] == -1).all()) and bool((found[:, ~real] == -1).all())
    assert bool((bank[:base] == -1).all()) and bool((bank[base + tiles * tokens:] == -1).all())


def test_a_patch_row_without_pieces_is_refused() -> None:
    spec = VitSpec(image_size=14, patch_size=7)
    with pytest.raises(ValueError, match=r"patch_size must be a multiple of lanes \(4\), not 7"):
        Patches(spec, load("edge8"))


# Order, places and synchronisation


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_every_style_is_safe_for_any_heads(style: Style, heads: int) -> None:
    spec = dataclasses.replace(TINY, dim=4 * heads, heads=heads)
    network = random_network(spec, load("tiny"))
    plan = schedule(network, style)
    regions = dict.fromkeys(region for step in plan.steps for region in step.regions)
    for place, region in enumerate(regions):
        region.base = place * 20   # far apart: only the order matters
    config = dataclasses.replace(load("tiny"), scratch_words=1 << 12, stationary_words=1 << 12)
    assert len(hazards([step.instruction() for step in plan.steps], config)) == len(plan.steps)
    parts = [(step.layer.split(".")[-1], step.detail.split(",")[0]) for step in plan.steps]
    for head in range(heads):
        order = [parts.index(part) for part in (
            ("qkv", f"K {head}"), ("qkv", f"V {head}"), ("qkv", f"Q {head}"),
            ("scores", f"head {head}"), ("context", f"head {head}"))]
        assert order == sorted(order)
    assert len(plan.steps) == len({(s.layer, s.detail, s.d and s.d.region, s.d and s.d.offset,
                                    s.fields["offset"]) for s in plan.steps})


def test_heads_are_interleaved(compiled8: Compiled) -> None:
    assert compiled8.style == Style(2, True)
    order = [(step.layer.split(".")[-1], step.detail.split(",")[0][-1:])
             for step in compiled8.steps if step.layer.startswith("blocks.0.attn.")]
    assert list(dict.fromkeys(order)) == [
        ("qkv", "0"), ("qkv", "1"), ("scores", "0"), ("qkv", "2"), ("context", "0"),
        ("scores", "1"), ("qkv", "3"), ("context", "1"), ("scores", "2"), ("scores", "3"),
        ("context", "2"), ("context", "3"), ("proj", "")]


def test_program_waits_exactly_where_it_must(compiled8: Compiled) -> None:
    found = list(parse(compiled8.program, compiled8.config))
    fields = [item.fields for item in found if item.kind == "PASS"]
    assert hazards(found, compiled8.config) == [(f["late"], f["pending"]) for f in fields]
    waits = [(step.layer.split(".", 2)[-1], f["late"], f["pending"])
             for step, f in zip(compiled8.steps, fields, strict=True) if f["late"] != LATE_NEVER]
    block = [("attn.qkv", 0, 0), ("attn.qkv", 0, 1), ("attn.proj", 6, 0), ("attn.proj", 7, 1),
             ("mlp.fc1", 0, 0), ("mlp.fc1", 0, 1), ("mlp.fc2", 14, 0), ("mlp.fc2", 15, 1)]
    assert waits == [*block * 4, ("head", 0, 0), ("head", 0, 1)]


def test_thresholds_come_with_the_first_pass_that_needs_them(mnist8: Network,
                                                             compiled8: Compiled) -> None:
    held: tuple[int, ...] | None = None
    brought = 0
    for step, item in zip(compiled8.steps, passes_of(compiled8), strict=True):
        if not step.layer.endswith("mlp.fc1"):
            assert item.thresholds is None and item.fields["format"] == 0
            continue
        layer = mnist8.requantizations[step.layer]
        wanted = thresholds(layer.encoding, layer.encode_shift, compiled8.config)
        assert (item.thresholds is None) == (held == wanted)
        assert item.fields["has_thresholds"] == (item.thresholds is not None)
        held, brought = item.thresholds or held, brought + item.fields["has_thresholds"]
        assert held == wanted
    assert 1 <= brought <= 4


def passes_of(compiled: Compiled) -> list[Instruction]:
    return [item for item in compiled.instructions if item.kind == "PASS"]


def number_of(compiled: Compiled, layer: str, detail: str = "") -> int:
    return next(number for number, step in enumerate(compiled.steps)
                if step.layer == layer and step.detail.startswith(detail))


def test_keys_that_are_too_fresh_are_found(compiled8: Compiled) -> None:
    passes = passes_of(compiled8)
    scores = number_of(compiled8, "blocks.0.attn.scores")
    key = passes.pop(number_of(compiled8, "blocks.0.attn.qkv", "K 0") + 1)
    passes.insert(scores - 3, key)
    assert hazards(passes[:scores + 1], compiled8.config)   # third pass before: just right
    passes.insert(scores - 2, passes.pop(scores - 3))
    with pytest.raises(ValueError, match=f"pass {scores} takes stationary weights that pass "
                                         f"{scores - 2} makes"):
        hazards(passes, compiled8.config)


def test_norm_parameters_that_come_too_early_are_found(compiled8: Compiled) -> None:
    passes = passes_of(compiled8)
    first = number_of(compiled8, "blocks.0.mlp.fc1")
    user = passes[number_of(compiled8, "blocks.0.attn.qkv")]
    other = dataclasses.replace(user, fields=dict(user.fields) | {
        "has_norm": 0, "norm_slot": passes[first].fields["norm_slot"]})
    for place, wrong in ((first - 4, False), (first - 3, True)):
        mutant = [*passes[:place], other, *passes[place + 1:]]
        if wrong:
            with pytest.raises(ValueError, match=f"pass {first} loads norm parameters over"):
                hazards(mutant, compiled8.config)
        else:
            assert hazards(mutant, compiled8.config)


def a_pass(**fields: int) -> Instruction:
    return Instruction("PASS", pass_fields(**({"tokens": 20, "tiles": 2, "a_stride": 20} | fields)))


@pytest.mark.parametrize(("first", "last", "waits"), [
    ({}, {"tokens": 7}, (0, 1)), ({}, {"tokens": 8}, (LATE_NEVER, 0)),
    ({}, {"tokens": 7, "tiles": 1}, (LATE_NEVER, 0)),
    ({"tokens": 7}, {"tokens": 7}, (LATE_NEVER, 0)), ({}, {"tokens": 7, "a_base": 100}, (0, 0)),
    ({}, {"tokens": 7, "a_base": 80}, (0, 0)), ({}, {"tokens": 7, "a_base": 180}, (0, 1)),
    ({"operation": 3, "destination": 3}, {"tokens": 7}, (LATE_NEVER, 0))], ids=str)
def test_a_short_pass_close_behind_a_long_one_waits(first: dict[str, int], last: dict[str, int],
                                                    waits: tuple[int, int]) -> None:
    # Words from 100 on are the second pass's: who takes them first waits until both have landed.
    passes = [a_pass(d_base=200, **first), a_pass(d_base=100), a_pass(d_base=300, **last)]
    assert hazards(passes, load("tiny"))[2] == waits


def test_words_that_a_pass_writes_twice_are_found() -> None:
    config = dataclasses.replace(load("tiny"), cols=8)
    assert hazards([a_pass(words=1, d_pitch=20)], config)
    assert hazards([a_pass(words=1, d_pitch=0)], load("tiny"))     # has one word
    with pytest.raises(ValueError, match="pass 0 writes words twice"):
        hazards([a_pass(words=1, d_pitch=19)], config)


def test_regions_that_live_together_lie_apart(compiled8: Compiled) -> None:
    regions = [*compiled8.regions]
    assert len(regions) == 2 + 4 * (4 * 3 + 4 + 2)
    for number, one in enumerate(regions):
        for other in regions[:number]:
            apart = one.bank != other.bank or one.base + one.words <= other.base \
                or other.base + other.words <= one.base
            assert apart or one.last <= other.first or other.last <= one.first
    for region in regions:
        assert 0 <= region.base <= compiled8.needed[region.bank] - region.words


def test_first_fit_uses_gaps_and_refuses_with_the_bytes() -> None:
    config = dataclasses.replace(load("tiny"), scratch_words=40)
    spans = [(0, 2, 10), (0, 9, 20), (2, 4, 10), (3, 5, 12), (4, 6, 8)]
    regions = [Region(str(n), "scratch", words, first, last)
               for n, (first, last, words) in enumerate(spans)]
    with pytest.raises(DoesNotFitError) as caught:
        allocate(regions, config)
    assert str(caught.value) == (
        "scratch_words: this network needs 168 bytes in the bank scratch (42 words), "
        "configuration tiny has 160 (40 words)")
    assert [region.base for region in regions] == [0, 10, 0, 30, 0]
    assert allocate(regions, dataclasses.replace(config, scratch_words=42))["scratch"] == 42


@pytest.mark.parametrize("seed", range(20))
def test_random_lives_lie_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    regions = []
    for number in range(60):
        words, length = rng.integers(1, 40), rng.integers(1, 12)
        regions.append(Region(str(number), "scratch", int(words), number // 3,
                              number // 3 + int(length)))
    needed = allocate(regions, dataclasses.replace(load("tiny"), scratch_words=1 << 12))
    assert needed["scratch"] == max(region.base + region.words for region in regions)
    # Pass by pass: what one leaves in a word must be there until it has been read.
    for number, one in enumerate(regions):
        for other in regions[:number]:
            if one.first < other.last and other.first < one.last:
                assert one.base + one.words <= other.base or other.base + other.words <= one.base


def test_a_small_scratchpad_changes_the_style_before_it_is_refused() -> None:
    network = random_network(dataclasses.replace(TINY, dim=32, heads=4), load("tiny"))
    styles = []
    for words in (80, 79, 48, 47, 32):   # K and V of a head: 2 * 2 tiles of 8 tokens
        config = dataclasses.replace(load("tiny"), stationary_words=words)
        styles.append(compile_network(dataclasses.replace(network, config=config)).style)
    assert styles == [STYLES[0], STYLES[2], STYLES[2], STYLES[3], STYLES[3]]
    config = dataclasses.replace(load("tiny"), stationary_words=31)
    with pytest.raises(DoesNotFitError, match=r"stationary_words: this network needs 128 bytes"):
        compile_network(dataclasses.replace(network, config=config))


# Sizes and bounds


def widest_sum(item: Instruction, config: Config) -> int:
    """Largest accumulator over all operands of the format, column by column."""
    top = operand_bound(item.fields)
    assert item.weights is not None
    return int((np.abs(item.weights.astype(object)).sum((0, 1)) * top).max())


def test_bounds_hold_the_worst_operands(compiled8: Compiled) -> None:
    config = compiled8.config
    for item in passes_of(compiled8):
        if item.weights is not None and item.fields["operation"] != 3:
            assert bound(item, config) == widest_sum(item, config) < 1 << 31
    head = passes_of(compiled8)[-1]
    assert head.parameters is not None
    assert bound(head, config) == widest_sum(head, config) + np.abs(head.parameters["bias"]).max()
    context = passes_of(compiled8)[number_of(compiled8, "blocks.0.attn.context")]
    assert bound(context, config) == row_bound(50, config) << 7 < 1.42 * (1 << 22)
    scores = passes_of(compiled8)[number_of(compiled8, "blocks.0.attn.scores")]
    assert bound(scores, config) == 16 * 128 * 128


@pytest.mark.parametrize(("fields", "top"), [
    ({"operand_zero_point": 0, "operand_bits": 8}, 255),
    ({"operand_zero_point": 200, "operand_bits": 8}, 200),
    ({"operand_zero_point": 128, "operand_bits": 8}, 128),
    ({"operand_format": 1, "operand_bits": 8, "operand_m": 3, "operand_signed": 1}, 64 << 3),
    ({"operand_format": 1, "operand_bits": 8, "operand_m": 3}, 127 << 3),
    ({"operand_format": 2, "operand_bits": 4}, 1 << 15),
    ({"operand_format": 3, "operand_bits": 8}, 255),
])
def test_operand_bounds_are_reached(fields: dict[str, int], top: int) -> None:
    fields = pass_fields(**fields)
    codes = torch.arange(1 << fields["operand_bits"])
    assert operand_bound(fields) == top
    assert int(decode_any(codes, fields, load("edge8")).abs().max()) == top


#: 577 tokens, as a picture of 384 pixels has them in patches of 16.
MANY = dataclasses.replace(TINY, image_size=96, dim=8, heads=1, mlp_hidden=8)


def roomy(**changes: Any) -> Config:
    return dataclasses.replace(load("edge8"), max_tokens=600, scratch_words=1 << 17,
                               residual_words=1 << 12, stationary_words=1 << 13, **changes)


def test_577_tokens_give_the_networks_logits() -> None:
    config = roomy()
    network = random_network(MANY, config)
    compiled = compile_network(network)
    assert compiled.spec.tokens == 577
    image = torch.randint(256, (1, 1, 96, 96), generator=torch.Generator().manual_seed(5))
    image = image.to(torch.uint8)
    sums: list[tuple[int, int]] = []

    def record(found: PassRecord) -> None:
        if found.fields["operand"] == OPERANDS["softmax"]:
            sums.append((int(found.operands.sum(1).max()), int(found.acc.abs().max())))

    run = execute(compiled.program, input_buffer(image, compiled), config, compiled.output_bytes,
                  record)
    assert read_logits(run.output, 6, config).tolist() == inference.run(network, image)[0].tolist()
    operands, acc = map(max, zip(*sums, strict=True))
    assert operands <= row_bound(577, config) and acc <= row_bound(577, config) << 7 < 1 << 23


def test_sums_that_could_overflow_are_refused() -> None:
    config = roomy(attention="two-scale", attention_bits=8)
    network = random_network(MANY, config)
    ((name, scale),) = network.scales.items()
    assert isinstance(scale, LevelScale)
    network = dataclasses.replace(
        network, scales={name: dataclasses.replace(scale, m=9)},
        formats={**network.formats, name: level_format(scale.shift, 9, config)})
    with pytest.raises(ValueError) as caught:
        compile_network(network)
    assert str(caught.value) == (f"acc_bits must be more than 32 for blocks.0.attn.context, whose "
                                 f"sums may reach {577 * 128 * 127 << 9}")


@pytest.mark.parametrize(("changes", "message"), [
    ({"cols": 24}, r"cols must be 1, 2 or 4 times rows \(8\) for an accelerator, not 24"),
    ({"cols": 4}, r"cols must be 1, 2 or 4 times rows \(8\) for an accelerator, not 4"),
    ({"cols": 32, "lanes": 2}, r"lanes must be .* from cols / 8 to rows / 2 \(8 rows, 32 cols\)"),
    ({"rows": 12, "cols": 12}, "rows must be 4, 8, 16, 32 or 64 for an accelerator, not 12"),
    ({"lanes": 16}, "lanes must be a power of two from cols / 8 to rows / 2 .*, not 16"),
    ({"max_tokens": 4}, "max_tokens must be at least 5 for this network's tokens, not 4"),
    ({"max_channels": 8}, "max_channels must be at least 10 for this network's channels, not 8"),
    ({"score_bits": 6}, "score_bits must be 8 for an accelerator, not 6"),
    ({"exponential": "iexp"}, "exponential must be shift for an accelerator, not iexp"),
    ({"weight_bits": 6}, r"weight_bits must be 8 \(keys .*\) for an accelerator, not 6"),
    ({"multiplier_bits": 17}, "multiplier_bits must be at most 16 for an accelerator, not 17"),
    ({"residual_words": 16}, r"residual_words: this network needs .* has 128 \(16 words\)"),
], ids=str)
def test_what_can_not_run_is_refused(changes: dict[str, Any], message: str) -> None:
    spec = dataclasses.replace(TINY, dim=10, heads=2) if "max_channels" in changes else \
        dataclasses.replace(TINY, dim=32)
    with pytest.raises(ValueError, match=message):
        compile_network(random_network(spec, dataclasses.replace(load("edge8"), **changes)))


@pytest.mark.parametrize(("weight_bits", "wanted"), [(4, 4), (5, 5), (8, 8), (None, 8)])
def test_weights_take_their_own_width(weight_bits: int | None, wanted: int) -> None:
    network = random_network(TINY, load("edge8"), weight_bits=weight_bits)
    compiled = compile_network(network)
    widths = {item.fields["weight_bits"] for item in passes_of(compiled)
              if not item.fields["stationary"]}
    assert widths == {wanted}
    assert minimal_bits(torch.tensor([[-8, 7]]), load("edge8")) == 4
    assert minimal_bits(torch.tensor([[0]]), load("edge8")) == 2


def test_unknown_layers_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight_bits must be of the layers .*not of 'fc9'"):
        random_network(TINY, load("edge8"), weight_bits={"fc9": 4})
    with pytest.raises(ValueError, match="weight_bits of head must be 2 to 8, not 9"):
        random_network(TINY, load("edge8"), weight_bits={"head": 9})


@pytest.mark.parametrize(("name", "passes", "words"), leading(1, [
    ("deit_tiny_patch16_224", 159, (9456, 2364, 4160)),
    ("deit_small_patch16_224", 318, (18912, 4728, 4992)),
    ("deit_base_patch16_224", 636, (37824, 9456, 4992)),
]))
def test_deit_fits_edge16(name: str, passes: int, words: tuple[int, int, int]) -> None:
    spec = lookup(name).spec
    assert isinstance(spec, VitSpec)
    config = load("edge16")
    compiled = compile_network(random_network(dataclasses.replace(spec, depth=1), config,
                                              images=1))
    patches, classes = spec.dim // 16, 63
    assert len(compiled.steps) == patches + passes + classes
    # Regions end with their block, so more blocks need no more words, and as many bytes each.
    assert compiled.needed["scratch"] >= words[0]
    assert compiled.needed["residual"] == words[1]
    assert compiled.needed["stationary"] <= 5120
    block = [item.size(config) for step, item in zip(compiled.steps, passes_of(compiled),
                                                     strict=True) if "blocks" in step.layer]
    whole = len(compiled.program) + (spec.depth - 1) * sum(block)
    weights = 12 * spec.dim**2 * spec.depth + spec.dim * (768 + 1000)
    assert weights < whole < 1.12 * weights


# The command


def test_fold_moves_the_normalisation_into_the_first_layer() -> None:
    spec = dataclasses.replace(TINY, in_channels=3)
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET.mean, IMAGENET.std))
    model = Vit(spec).initialize(3).eval()
    with torch.inference_mode():
        wanted = model((pixels - mean) / std)
    with torch.inference_mode():
        found = fold(model, IMAGENET)(pixels)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(model(pixels * 0.5), wanted, atol=1e-2)


def test_memory_image_has_all_buffers(mnist8: Network, compiled8: Compiled) -> None:
    codes = torch.arange(784).reshape(1, 28, 28).to(torch.uint8)
    image = memory_image(compiled8, codes, start=100)
    assert image.program == compiled8.program
    assert image.input == input_buffer(codes, compiled8)
    assert image.input[:784] == bytes(range(256)) * 3 + bytes(range(16))
    assert all(address % 4096 == 0 for address, _ in image.buffers.values())
    assert image.buffers["program"][0] == 4096
    address, size = image.buffers["output"]
    assert len(image.data) == address + size and size == 128


def test_command_writes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert main(["mnist", "--config", "edge8", "--image", "7", "-o", str(folder)]) == 0
    assert "378 passes" in capsys.readouterr().out
    memory = (folder / "memory.bin").read_bytes()
    what = json.loads((folder / "memory.json").read_text())
    program = (folder / "program.bin").read_bytes()
    start = what["buffers"]["program"]["address"]
    assert memory[start:start + len(program)] == program
    assert what["logit_offsets"][7:9] == [28, 64]
    text = (folder / "listing.txt").read_text()
    rows = [line.split() for line in text.splitlines()]
    assert ["residual", "400", "512", "3200", "4096"] in rows
    assert ["blocks.0.attn.scores", "28", "50x16", "179200", "3584", "2800", "2800"] in rows
    layers = [row for row in rows if len(row) == 7 and row[1].isdecimal() and "x" in row[2]]
    # All but what comes before the first operand of all, and after the last.
    cycles = predict(program, load("edge8")).cycles
    assert f"{cycles:,} cycles with a memory" in text
    assert 0 < cycles - sum(int(row[-1]) for row in layers) < 400
    assert sum(line.startswith(tuple("0123456789")) and "0x" in line
               for line in text.splitlines()) >= 378


@pytest.mark.parametrize(("arguments", "message"), [
    (["resnet"], "the network must be one of mnist, vit_small_patch16_224"),
    (["mnist", "--config", "huge"], "no configuration 'huge'"),
    (["deit_tiny_patch16_224"], "deit_tiny_patch16_224 needs --checkpoint and --calibration"),
    (["mnist", "--weights", "9"], "weight_bits of patch_embed.proj must be 2 to 8, not 9"),
    (["mnist", "--image", "300"], "the image must be one of 0 to 299, not 300"),
    (["mnist", "--checkpoint", "none.pth"], "can't read none.pth: No such file or directory"),
    (["deit_tiny_patch16_224", "--random", "0", "--config", "edge8"],
     "max_tokens must be at least 197 for this network's tokens, not 64"),
])
def test_command_refuses_in_one_line(arguments: list[str], message: str, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert message in error
    assert not (tmp_path / "out").exists()


def test_command_names_the_memory_that_is_too_small(tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "small.toml"
    config.write_text("rows = 8\ncols = 8\nresidual_words = 399\n")
    assert main(["mnist", "--config", str(config), "-o", str(tmp_path / "out")]) == 2
    assert ("residual_words: this network needs 3,200 bytes in the bank residual (400 words), "
            "configuration small has 3,192 (399 words)") in capsys.readouterr().err
