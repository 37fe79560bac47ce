# SPDX-License-Identifier: Apache-2.0
"""Four products a multiplier in the accelerator: programs, the golden machine, and the Verilog."""

import dataclasses

import numpy as np
import pytest
import torch

from gen.compiler.check import hazards
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.listing import listing
from gen.compiler.steps import pass_fields
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import predict
from golden.machine.execute import execute
from golden.machine.halves import stationary_weights, store, tokens_of
from golden.machine.places import kept_places, result_addresses, result_halves
from golden.machine.program import Fault, Instruction, assemble, parse
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.fast import Fast
from golden.network.halves import LEAST, packed_stationary
from golden.network.integers import Network
from tests import random_passes
from tests.sample import later, leading, thinned
from tests.test_not_square import SPECS, Work, compare, named, of_passes, outcomes
from tests.test_pair import of_network
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import (
    DESTINATIONS,
    LATE_NEVER,
    LINE,
    MODES,
    OPCODES,
    OPERANDS,
    OPERATIONS,
    PACKS,
    PARAMETER,
    PASS,
)
from vitforge.spec.pass_fields import pass_words
from vitforge.spec.register_map import FAULTS

TINY = dataclasses.replace(load("tiny"), name="tiny-quad", modes="single+pair+quad")
UNIFORM = dataclasses.replace(TINY, attention="uniform")
#: Log2 probabilities stay single; operands of 5 bits; as many lanes as rows.
SHAPES = [TINY, dataclasses.replace(UNIFORM, name="tiny4x8-quad", cols=8, lanes=4,
                                    multiplier="27x18"),
          dataclasses.replace(UNIFORM, name="tiny8x8-quad", rows=8, cols=8, lanes=8,
                              attention_bits=3, axi_bits=128)]
#: An odd number of tokens, more than two passes need, and heads of several passes.
LONG = VitSpec(image_size=32, patch_size=8, in_channels=1, classes=6, dim=40, depth=1, heads=2,
               mlp_hidden=44)
#: One pass reads the norm's codes before the MLP, and keeps them for no other.
ONCE = dataclasses.replace(LONG, image_size=16, patch_size=4, dim=8, heads=1, mlp_hidden=8)
PAIR, QUAD = MODES["pair"], MODES["quad"]
#: Programs of random passes: so many have all kinds.
PASSES = 8


def network(spec: VitSpec, config: Config, bits: int = 4, **widths: int) -> Network:
    """Calibrate a random network with weights of 4 bits, or of other widths in some layers."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    names = {f"{layer}.{part}": widths.get(part, 4) for layer in
             (f"blocks.{number}" for number in range(spec.depth))
             for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    names |= {name: widths.get(name, 4) for name in ("patch_embed.proj", "head")}
    return calibrate(Vit(spec).initialize(7).eval(), images, config, names, gelu="uniform",
                     activation_bits=bits)


def works(config: Config) -> list[Work]:
    """Networks whose layers all share multipliers, or some."""
    specs = [spec for spec in (*SPECS, LONG, ONCE) if config.lanes <= spec.patch_size]
    return [*(of_network(network(spec, config)) for spec in specs),
            of_network(network(LONG, config, 3, **{"mlp.fc1": 8, "attn.proj": 3})),
            of_network(network(LONG, config, **{"attn.qkv": 5})),
            of_network(network(specs[0], config, 8))]


@pytest.mark.thorough
@pytest.mark.rtl
@pytest.mark.parametrize("config", [later(SHAPES[0]), SHAPES[1], later(SHAPES[2])], ids=named)
def test_networks_and_random_passes_are_exact(config: Config) -> None:
    compare(config, [*works(config), *(of_passes(config, seed, 40) for seed in range(PASSES))])


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_many_random_passes_are_exact(config: Config) -> None:
    compare(config, [of_passes(config, seed, 80) for seed in range(100, 160)])


@pytest.mark.parametrize("config", leading(1, SHAPES), ids=named)
def test_random_passes_are_of_all_kinds(config: Config) -> None:
    seen, odd = set(), set()
    for seed in range(PASSES):
        before = None
        for item in parse(random_passes.program(config, seed, 40)[0], config):
            if item.kind == "PASS":
                fields = item.fields
                mode, stationary = fields["mode"], fields["stationary"]
                seen.add((mode, pass_words(fields, config)))
                seen.add((mode, "raw", fields["operation"] == OPERATIONS["raw"]))
                seen.add((mode, "by column", fields["by_column"] if stationary else None))
                seen.add((mode, "pack", fields["pack"]))
                seen.add((mode, "keep", fields["keep"]))
                seen.add(("from", before, "to", mode))
                before = mode
                odd.add((mode, fields["tokens"] % 2, fields["tokens"] > 8))
    wide = config.cols // config.rows
    modes = set(MODES.values())
    assert {(mode, words) for mode in (PAIR, QUAD) for words in range(1, 2 * wide + 1)} <= seen
    assert {(mode, "raw", raw) for mode in modes for raw in (False, True)} <= seen
    assert {(mode, "by column", way) for mode in modes for way in (0, 1, None)} <= seen
    assert {(mode, "pack", pack) for mode in modes for pack in PACKS.values()} <= seen
    assert {(0, "keep", 1), (PAIR, "keep", 1)} <= seen and (QUAD, "keep", 1) not in seen
    assert {("from", one, "to", two) for one in modes for two in modes} <= seen
    assert {(QUAD, part, many) for part in (0, 1) for many in (False, True)} <= odd


@pytest.mark.parametrize(("shape", "attention"), thinned(
    [(4, 4, 4, "18x18"), (4, 4, 1, "27x18"), (8, 8, 4, "25x18"), (8, 16, 8, "18x18"),
     (16, 16, 8, "27x18"), (16, 32, 8, "18x18")],
    [("uniform", 4), ("uniform", 3), ("log2", 4), ("table", 4)], of=4))
def test_logits_are_the_networks_on_any_shape(shape: tuple[int, int, int, str],
                                              attention: tuple[str, int]) -> None:
    rows, cols, lanes, multiplier = shape
    kind, bits = attention
    config = dataclasses.replace(TINY, rows=rows, cols=cols, lanes=lanes, multiplier=multiplier,
                                 attention=kind, attention_bits=bits)
    for spec in (SPECS[1], LONG):
        if lanes <= spec.patch_size:
            of_network(network(spec, config))


def _passes(compiled: Compiled, layer: str) -> list[tuple[int, ...]]:
    found = [item.fields for item in compiled.instructions if item.kind == "PASS"]
    return [(fields["mode"], fields["words"] + 1, fields["keep"], fields["pack"])
            for step, fields in zip(compiled.steps, found, strict=True) if step.layer == layer]


def test_layers_that_fit_share_multipliers() -> None:
    config = dataclasses.replace(UNIFORM, multiplier="27x18")
    compiled = compile_network(network(LONG, config))
    # 40 channels are 10 words of 4, two a pass; pixels have 8 bits.
    assert _passes(compiled, "patch_embed.proj") == [(PAIR, 2, 0, 0)] * 5
    # Heads of 20 channels are 5 words. The first pass keeps the norm's codes.
    keys, values, queries = ([(QUAD, words, 0, PACKS[name]) for words in (2, 2, 1)]
                             for name in ("keys", "values", "tokens"))
    assert _passes(compiled, "blocks.0.attn.qkv") == [
        (PAIR, 2, 1, PACKS["keys"]), *keys[1:], *values, *queries, *keys, *values, *queries]
    # 17 keys, eight a pass.
    assert _passes(compiled, "blocks.0.attn.scores") == [
        (QUAD, 2, 0, 0), (QUAD, 2, 0, 0), (QUAD, 1, 0, 0)] * 2
    packed = PACKS["tokens"]
    assert _passes(compiled, "blocks.0.attn.context") == [
        (PAIR, 2, 1, packed), (QUAD, 2, 0, packed), (QUAD, 1, 0, packed)] * 2
    assert _passes(compiled, "blocks.0.attn.proj") == [(QUAD, 2, 0, 0)] * 5
    assert _passes(compiled, "blocks.0.mlp.fc1") == [
        (PAIR, 2, 1, packed), *[(QUAD, 2, 0, packed)] * 4, (QUAD, 1, 0, packed)]
    assert _passes(compiled, "blocks.0.mlp.fc2") == [(QUAD, 2, 0, 0)] * 5
    # 4 bits of a probability don't fit the shorter port; those of 3 do.
    short = compile_network(network(LONG, UNIFORM))
    assert {passes[0] for passes in _passes(short, "blocks.0.attn.context")} == {PAIR}
    few = compile_network(network(LONG, dataclasses.replace(UNIFORM, attention_bits=3)))
    assert {passes[0] for passes in _passes(few, "blocks.0.attn.context")} == {PAIR, QUAD}


def test_what_does_not_fit_has_fewer_products() -> None:
    wide = compile_network(network(LONG, UNIFORM, 8))
    assert {passes[0] for step in wide.steps for passes in _passes(wide, step.layer)} == {0, PAIR}
    assert not any(passes[3] for step in wide.steps for passes in _passes(wide, step.layer))
    # Values of a layer of wide weights come word by word, so no byte has two.
    some = compile_network(network(LONG, UNIFORM, **{"attn.qkv": 5}))
    assert {passes[3] for passes in _passes(some, "blocks.0.attn.qkv")} == {
        PACKS["keys"], PACKS["tokens"], 0}
    assert {passes[0] for passes in _passes(some, "blocks.0.attn.context")} == {0}


def test_packed_tensors_take_half_the_words() -> None:
    packed = compile_network(network(LONG, UNIFORM))
    plain = compile_network(network(LONG, dataclasses.replace(UNIFORM, modes="single+pair")))
    for name, times in (("hidden", 9 / 17), ("context", 9 / 17), ("Q 0", 9 / 17),
                        ("K 0", 12 / 20), ("V 0", 6 / 10 * 1)):
        sizes = [next(region.words for region in compiled.regions if region.name == name)
                 for compiled in (packed, plain)]
        assert sizes[0] == pytest.approx(sizes[1] * times), name
    assert packed.needed["stationary"] < 0.7 * plain.needed["stationary"]


def test_the_listing_says_modes_and_what_they_cost() -> None:
    text = listing(compile_network(network(LONG, UNIFORM)))
    rows = [line.split() for line in text.splitlines()]
    modes = {row[0]: row[-2:] for row in rows if len(row) > 8 and row[0].startswith("blocks.")}
    assert modes["blocks.0.mlp.fc2"] == ["quad", "64"]
    assert modes["blocks.0.attn.context"] == ["pair", "32"]
    costs = [line for line in text.splitlines() if "cycles more" in line]
    # 17 tokens, 64 pixels in 16 tiles, 5 passes; 5 tiles of keys, 3 passes, 2 heads.
    assert "patch_embed.proj: operands of 8 bits, so one token at a time: 640 cycles more" in costs
    assert ("blocks.0.attn.context: probabilities up to 15 (multiplier is 18x18), so one token at "
            "a time: 240 cycles more") in costs
    assert not any(line.startswith("blocks.0.mlp") for line in costs)


def test_four_products_take_fewer_words() -> None:
    found = {modes: predict(compile_network(network(
        LONG, dataclasses.replace(UNIFORM, modes=modes))).program, dataclasses.replace(
            UNIFORM, modes=modes)).array_busy for modes in ("single", "single+pair", UNIFORM.modes)}
    assert found["single+pair"] < 0.8 * found["single"]
    assert found[UNIFORM.modes] < 0.7 * found["single+pair"]


@pytest.mark.parametrize("cols", [4, 8, 16])
def test_places_of_packed_results(cols: int) -> None:
    config = dataclasses.replace(TINY, cols=cols)
    words, tokens = 2 * cols // 4, 3 * cols + 1
    for name, pack in PACKS.items():
        fields = pass_fields(mode=QUAD, tokens=tokens, words=words - 1, d_base=3, d_pitch=100,
                             pack=pack)
        places, halves = result_addresses(fields, config), result_halves(fields, config)
        for token in range(tokens):
            for word in range(words):
                wanted = {"none": (token + 100 * word, 0), "tokens": (
                    token // 2 + 100 * word, token % 2),
                    "keys": (token // (2 * cols) * cols + token % cols + 100 * word,
                             token // cols % 2),
                    "values": (token + 100 * (word % (cols // 4)), word // (cols // 4))}[name]
                if name == "none":
                    wanted = (wanted[0], int(halves[token, word]))
                assert (places[token, word] - 3, halves[token, word]) == wanted, (name, token, word)
        assert len({*zip((places).flat, halves.flat, strict=True)}) == tokens * words
    fields = pass_fields(tokens=5, tiles=2, offset=7, keep=1)
    places, halves = kept_places(fields, config)
    assert places.tolist() == [[7, 7, 8, 8, 9, 9], [10, 10, 11, 11, 12, 12]]
    assert halves.tolist() == [[0, 1, 0, 1, 0, 1]] * 2


def test_halves_of_a_byte() -> None:
    bank = torch.full((3, 2), 0xAB)
    store(bank, torch.tensor([0, 1, 1]), np.array([0, 1, 0]),
          torch.tensor([[1, 2], [3, 0x54], [0xF5, 6]]))
    assert bank.tolist() == [[0xA1, 0xA2], [0x35, 0x46], [0xAB, 0xAB]]
    assert tokens_of(bank).tolist() == [[1, 2], [10, 10], [5, 6], [3, 4], [11, 11], [10, 10]]
    # Code 0 counts as 1, so no weight is -8.
    words = torch.tensor([[[0x80, 0x1F], [0x08, 0xF0]]])
    assert stationary_weights(words, True).tolist() == [[[-7, 7], [0, -7], [0, -7], [-7, 7]]]
    assert stationary_weights(words, False).tolist() == [[[-7, 7, 0, -7], [0, -7, -7, 7]]]


def _saturated(config: Config) -> Network:
    """Return a network whose keys and values saturate at the least code."""
    found = network(LONG, config)
    name = "blocks.0.attn.qkv"
    layer = found.requantizations[name]
    large = dataclasses.replace(layer, multiplier=torch.full_like(layer.multiplier, 65535))
    return dataclasses.replace(found, requantizations=found.requantizations | {name: large})


def test_the_least_code_of_a_key_is_the_next_one() -> None:
    integers, seen = _saturated(UNIFORM), {}

    def look(call: inference.Call) -> None:
        seen.setdefault((call.operation.name, call.unit), call)

    images = torch.randint(256, (2, 1, 32, 32), generator=torch.Generator().manual_seed(1)
                           ).to(torch.uint8)
    logits = inference.run(integers, images, look)
    codes = seen["blocks.0.attn.qkv", "requant"].output
    assert int(codes.min()) == 120 and int(codes.max()) == 135     # -8 and 7 around 128
    for name in ("blocks.0.attn.scores", "blocks.0.attn.context"):
        assert int(seen[name, "systolic"].inputs["weights"].min()) == LEAST
    assert torch.equal(Fast(integers)(images), logits)
    of_network(integers)
    plain = dataclasses.replace(integers, config=dataclasses.replace(UNIFORM, modes="single"))
    assert not packed_stationary(plain) and not torch.equal(inference.run(plain, images), logits)
    of_network(plain)


def _pass(config: Config, weights: np.ndarray | None, **given: int) -> Instruction:
    channels = (given.get("words", 0) + 1) * config.rows
    fields = {"operation": OPERATIONS["raw"], "destination": 3, "tokens": 1, "tiles": 1,
              "weight_bits": 8, "bits": 8}
    return Instruction("PASS", pass_fields(**fields | given), None,
                       {item.name: np.zeros(channels, np.int64) for item in PARAMETER.fields},
                       weights)


#: Of a pass whose results are codes.
CODED = {"operation": OPERATIONS["linear"], "destination": DESTINATIONS["scratch"]}
KEEPS = CODED | {"keep": 1, "late": 0}


def _lacking(config: Config) -> list[dict[str, int]]:
    """Fields of passes that no array of quads has."""
    wide = config.cols // config.rows
    return [{"mode": 3}, {"words": wide}, {"mode": 0, "words": 2 * wide - 1},
            {"mode": QUAD, "words": 2 * wide}, {"mode": QUAD, "operand": OPERANDS["softmax"]},
            {"mode": QUAD, "operand": OPERANDS["norm"]}, {"mode": QUAD, "blank_first": 1},
            {"mode": QUAD, "operand_format": 1}, {"mode": QUAD, "operand_format": 2},
            KEEPS | {"mode": QUAD}, KEEPS | {"late": 1}, KEEPS | {"pending": 1},
            {"keep": 1, "late": 0},
            *([KEEPS | {"operand": OPERANDS["softmax"]}] if config.attention == "log2" else []),
            CODED | {"operation": OPERATIONS["residual"], "destination": DESTINATIONS["residual"],
                     "pack": 1}]


def test_results_over_kept_operands_are_waited_for() -> None:
    # The one pass of fc1 keeps a norm's codes that no other pass reads: its results lie over them.
    keeps = _pass(UNIFORM, None, **KEEPS, pending=0, tokens=17, tiles=2, a_base=50)
    reads = _pass(UNIFORM, None, **CODED, tokens=17, tiles=2, d_base=100)
    assert hazards([keeps, reads], UNIFORM) == [(0, 0), (0, 0)]
    assert hazards([keeps, _pass(UNIFORM, None, **CODED, tokens=17, a_base=90, d_base=100)],
                   UNIFORM) == [(0, 0), (LATE_NEVER, 0)]


def test_a_kept_word_is_waited_for_whoever_reads_it_and_where() -> None:
    # Its 15th and last word is kept of the last request but none, and read as the 13th or 14th.
    keeps = _pass(UNIFORM, None, **KEEPS, pending=0, tokens=10, tiles=3, a_base=50, offset=200,
                  d_base=500)
    for first, needed in ((202, (0, 0)), (201, (LATE_NEVER, 0))):
        reads = _pass(UNIFORM, None, tokens=215 - first, a_base=first)
        assert hazards([keeps, reads], UNIFORM)[1] == needed
    # A short pass between the two makes it late enough.
    short = _pass(UNIFORM, None, a_base=90)
    reads = _pass(UNIFORM, None, tokens=13, a_base=202)
    assert hazards([keeps, short, reads], UNIFORM)[2] == (LATE_NEVER, 0)
    # As do results in its place: they are waited for again.
    writes = _pass(UNIFORM, None, **CODED, d_base=214, a_base=90)
    assert hazards([keeps, writes, reads], UNIFORM)[2] == (0, 0)


def _with_fields(config: Config, changes: dict[str, int]) -> bytes:
    """Return a program of one pass, whose instruction is then given other fields."""
    item = _pass(config, np.zeros((1, config.rows, config.rows), np.int8))
    values = {field.name: [0] for field in PASS.fields}
    values |= {name: [value] for name, value in (dict(item.fields) | changes).items()}
    values["opcode"] = [OPCODES["PASS"]]
    head = PASS.pack(values)[0].to_bytes(LINE, "little")
    return head + assemble([item, Instruction("END", {})], config)[LINE:]


@pytest.mark.thorough
@pytest.mark.rtl
@pytest.mark.parametrize("config", [later(SHAPES[0]), SHAPES[1], later(SHAPES[2])], ids=named)
def test_passes_that_the_machine_lacks_are_refused(config: Config) -> None:
    programs = [_with_fields(config, changes) for changes in _lacking(config)]
    for program, changes in zip(programs, _lacking(config), strict=True):
        with pytest.raises(Fault) as caught:
            execute(program, bytes(LINE), config, LINE)
        assert (caught.value.kind, caught.value.checked) == ("bad field", True), changes
    found = outcomes(config, [Work(program, bytes(LINE), bytes(LINE)) for program in programs])
    assert [(outcome.STATUS, outcome.FAULT) for outcome, _ in found] \
        == [(4, FAULTS["bad field"])] * len(programs)


def test_modes_that_the_configuration_lacks_are_refused() -> None:
    pair = dataclasses.replace(TINY, modes="single+pair")
    for changes in ({"mode": QUAD}, {"mode": PAIR, "stationary": 1}):
        with pytest.raises(Fault, match="bad field"):
            list(parse(_with_fields(pair, changes), pair))
    # What isn't there doesn't count.
    single = dataclasses.replace(TINY, modes="single")
    for config in (pair, single):
        for changes in ({"keep": 1}, {"pack": 2}):
            assert len(list(parse(_with_fields(config, changes), config))) == 2


@pytest.mark.parametrize(("change", "message"), [
    ({"modes": "single+quad"}, "modes must be single, single.pair or single.pair.quad for"),
    ({"packed_weight_bits": 3}, "packed_weight_bits must be 4 "),
    ({"lanes": 8}, "lanes must be a power of two from cols / 4 to rows .4 rows, 4 cols. for"),
    ({"modes": "single+pair", "lanes": 4},
     "lanes must be a power of two from cols / 4 to rows / 2 .4 rows, 4 cols. for"),
])
def test_configurations_that_are_refused(change: dict[str, object], message: str) -> None:
    config = dataclasses.replace(TINY, **change)
    with pytest.raises(ValueError, match=f"^{message}"):
        compile_network(network(SPECS[0], config))


def test_operands_that_are_too_wide_have_no_meaning() -> None:
    for multiplier, zero, fits in (("18x18", 8, True), ("18x18", 7, False), ("18x18", 0, False),
                                   ("27x18", 0, True), ("27x18", 15, True)):
        config = dataclasses.replace(TINY, multiplier=multiplier)
        codes = np.full((1, config.rows), 0xF0, np.uint8).tobytes()
        load_codes = Instruction("LOAD", {
            "inline": 1, "destination": 0, "piece": 2, "offset": 0, "bytes": 4, "base": 0,
            **{f"{name}_{loop}": int(name == "count") for name in ("count", "delta")
               for loop in range(6)}}, data=codes)
        item = _pass(config, np.ones((1, config.rows, config.rows), np.int8), mode=QUAD,
                     operand_zero_point=zero)
        program = assemble([load_codes, item, Instruction("END", {})], config)
        if fits:
            run = execute(program, bytes(LINE), config, LINE)
            assert np.frombuffer(run.output, "<i4")[:4].tolist() == [-4 * zero] * 4
            continue
        with pytest.raises(Fault, match="operands of quad must fit 4 bits") as caught:
            execute(program, bytes(LINE), config, LINE)
        assert not caught.value.checked


def test_what_waits_for_kept_operands() -> None:
    def needed(tiles: int, tokens: int, **more: int) -> tuple[int, int]:
        keeps = _pass(TINY, np.zeros((tiles, 4, 4), np.int8), **KEEPS, tiles=tiles, tokens=tokens,
                      a_stride=tokens, d_base=500, offset=200, **more)
        words = -(-tokens // 2)
        reads = _pass(TINY, np.zeros((tiles, 4, 4), np.int8), mode=QUAD, tiles=tiles,
                      tokens=tokens, a_base=200, a_stride=words, operand_zero_point=8)
        first, second = hazards([keeps, reads], TINY)
        assert first == (0, 0)
        return second

    # 14 words and more between a word's way in and its way back out are enough.
    assert needed(2, 14)[0] > 2 and needed(14, 1)[0] > 14
    assert needed(2, 12) == (1, 0) and needed(13, 2) == (12, 0) and needed(1, 12) == (0, 0)
    with pytest.raises(ValueError, match=r"^pass 0 keeps operands over those that it reads$"):
        needed(2, 14, a_base=180)
