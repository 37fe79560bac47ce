# SPDX-License-Identifier: Apache-2.0
"""The interpreter of programs: equal to the integer network, and to a plain model of a pass."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gen.compiler.command import input_buffer
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.image import Patches
from gen.compiler.model import quantized
from gen.compiler.steps import pass_fields
from golden.data import mnist
from golden.float.models import lookup
from golden.float.vit import Vit, VitSpec
from golden.formats.attention import level_format
from golden.formats.formats import TwoScale, Uniform
from golden.machine.execute import PassRecord, execute
from golden.machine.program import Fault, Instruction, assemble, read_logits
from golden.machine.state import State
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.inference import Call
from golden.network.integers import Network
from golden.units.encoding import Encoding, encode, thresholds
from golden.units.softmax import LevelScale
from tests.sample import later, thorough
from vitforge.spec.config import Config, load
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import LINE, PARAMETER
from vitforge.spec.register_map import FAULTS


def images_of(spec: VitSpec, count: int, seed: int) -> Tensor:
    shape = (count, spec.in_channels, spec.image_size, spec.image_size)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


def logits(compiled: Compiled, image: Tensor, **options: Any) -> list[int]:
    run = execute(compiled.program, input_buffer(image, compiled), compiled.config,
                  compiled.output_bytes, **options)
    assert run.passes == len(compiled.steps)
    found: list[int] = read_logits(run.output, compiled.spec.classes, compiled.config).tolist()
    return found


# Whole networks


@pytest.fixture(scope="module")
def mnist8() -> Network:
    return quantized("mnist", load("edge8"))


@pytest.fixture(scope="module")
def compiled8(mnist8: Network) -> Compiled:
    return compile_network(mnist8)


def test_digits_give_the_networks_logits(mnist8: Network, compiled8: Compiled) -> None:
    test = mnist.sample().test
    chosen = test.images[::100]
    wanted = inference.run(mnist8, chosen)
    for image, label, row in zip(chosen.split(1), test.labels[::100], wanted, strict=True):
        found = logits(compiled8, image)
        assert found == row.tolist()
        assert int(np.argmax(found)) == int(label)


@pytest.mark.parametrize("name", ["tiny", "edge16"])
def test_a_digit_gives_the_same_on_other_arrays(name: str) -> None:
    whole = quantized("mnist", load(name))
    image = mnist.sample().test.images[123:124]
    assert logits(compile_network(whole), image) == inference.run(whole, image)[0].tolist()


def test_every_pass_gives_the_networks_tensors(mnist8: Network, compiled8: Compiled) -> None:
    image = mnist.sample().test.images[5:6]
    calls: list[Call] = []
    inference.run(mnist8, image, calls.append)
    wanted = {(call.name, call.unit): call.output[0] for call in calls}
    records: list[PassRecord] = []
    logits(compiled8, image, record=records.append)
    assert [record.number for record in records] == list(range(len(compiled8.steps)))

    def found(layer: str, detail: str = "", what: str = "result") -> Tensor:
        pairs = zip(records, compiled8.steps, strict=True)
        parts = [getattr(record, what) for record, step in pairs
                 if step.layer == layer and step.detail.startswith(detail)]
        return torch.cat(parts, 1)

    assert torch.equal(found("patch_embed.proj"), wanted["embedding", "requant"])
    assert torch.equal(found("patch_embed.proj", what="acc")[1:],
                       wanted["patch_embed.proj", "systolic"])
    for block in (f"blocks.{number}" for number in range(4)):
        qkv = wanted[f"{block}.attn.qkv", "requant"].reshape(50, 3, 4, 16)
        for number, part in enumerate("QKV"):
            for head in range(4):
                assert torch.equal(found(f"{block}.attn.qkv", f"{part} {head}"),
                                   qkv[:, number, head])
        for head in range(4):
            scores = found(f"{block}.attn.scores", f"head {head}")[:, :50]
            assert torch.equal(scores, wanted[f"{block}.attn.scores", "requant"][head])
        for layer, name in (("attn.context", "attn.context"), ("attn.proj", "residual1"),
                            ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "residual2")):
            assert torch.equal(found(f"{block}.{layer}"), wanted[f"{block}.{name}", "requant"])
        normed = records[next(n for n, step in enumerate(compiled8.steps)
                              if step.layer == f"{block}.mlp.fc1")]
        assert torch.equal(normed.operands + normed.fields["operand_zero_point"],
                           wanted[f"{block}.norm2", "layernorm"])


SPECS = {
    "padded everywhere": VitSpec(image_size=12, patch_size=4, in_channels=3, classes=5, dim=18,
                                 depth=2, heads=3, mlp_hidden=22),
    "one head": VitSpec(image_size=8, patch_size=8, in_channels=2, classes=9, dim=8, depth=2,
                        heads=1, mlp_hidden=8),
    "many narrow heads": VitSpec(image_size=16, patch_size=8, in_channels=1, classes=17, dim=20,
                                 depth=1, heads=5, mlp_hidden=16),
    "wide heads": VitSpec(image_size=16, patch_size=4, in_channels=1, classes=2, dim=48, depth=1,
                          heads=2, mlp_hidden=40),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", ["tiny", "edge8", "edge16"])
def test_any_shape_gives_the_networks_logits(spec: VitSpec, name: str) -> None:
    config = load(name)
    whole = calibrate(Vit(spec).initialize(7).eval(), images_of(spec, 3, 1), config)
    image = images_of(spec, 1, 2)
    assert logits(compile_network(whole), image) == inference.run(whole, image)[0].tolist()


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_weights_of_any_width_give_the_networks_logits(bits: int) -> None:
    spec, config = SPECS["padded everywhere"], load("edge8")
    mixed = {"blocks.0.mlp.fc1": bits, "blocks.1.attn.qkv": bits, "head": bits}
    whole = calibrate(Vit(spec).initialize(3).eval(), images_of(spec, 3, 1), config, mixed)
    compiled = compile_network(whole)
    widths = {step.layer: item.fields["weight_bits"] for step, item in zip(
        compiled.steps, compiled.instructions[2:], strict=False) if step.weights is not None}
    assert {name: width for name, width in widths.items() if width != 8} == \
        ({} if bits == 8 else mixed)
    image = images_of(spec, 1, 2)
    assert logits(compiled, image) == inference.run(whole, image)[0].tolist()


ATTENTION = [later("log2", 3), ("log2", 4), later("log2", 5), ("uniform", 8), later("uniform", 4),
             ("two-scale", 8), later("two-scale", 6), thorough("log-sqrt2", 4),
             later("log-sqrt2", 3), thorough("table", 4), later("table", 3)]


@pytest.mark.parametrize(("kind", "bits"), ATTENTION)
def test_attention_codes_give_the_networks_logits(kind: str, bits: int) -> None:
    spec = SPECS["padded everywhere"]
    config = dataclasses.replace(load("tiny"), attention=kind, attention_bits=bits)
    whole = calibrate(sharp(spec, 3), images_of(spec, 3, 1), config)
    calls: list[Call] = []
    image = images_of(spec, 1, 2)
    assert logits(compile_network(whole), image) == inference.run(
        whole, image, calls.append)[0].tolist()
    if kind != "log2":
        # Another scale, table or number of octaves in each block.
        m = {"table": (1, 0), "two-scale": (3, 1), "log-sqrt2": (1 << bits - 2,) * 2}.get(
            kind, (0, 0))
        other = with_levels(whole, [(-300, m[0]), (-41, m[1])])
        found = logits(compile_network(other), image)
        assert found == inference.run(other, image)[0].tolist()
        assert found != logits(compile_network(whole), image)
    # The codes are of this kind, and many of them occur.
    codes = torch.cat([call.output.flatten() for call in calls if call.unit == "softmax"])
    assert len(codes.unique()) > min(1 << bits, 16) // 2
    form = whole.formats["blocks.1.attn.softmax"]
    assert type(form).__name__.lower() == kind.replace("-", "")
    assert form.bits == (8 if kind == "log-sqrt2" else bits)


def with_levels(whole: Network, given: Sequence[tuple[int, int]]) -> Network:
    """Change shift and m of every block's probabilities."""
    scales, formats = dict(whole.scales), dict(whole.formats)
    for (name, scale), (shift, m) in zip(whole.scales.items(), given, strict=True):
        assert isinstance(scale, LevelScale)
        scales[name] = dataclasses.replace(scale, shift=shift, m=m)
        formats[name] = level_format(shift, m, whole.config)
    return dataclasses.replace(whole, scales=scales, formats=formats)


def sharp(spec: VitSpec, seed: int) -> Vit:
    """Return a random network whose attention isn't almost the same for all keys."""
    model = Vit(spec).initialize(seed).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("qkv.weight"):
                value.mul_(7)
    return model


def test_the_two_scales_of_attention_are_both_used() -> None:
    spec = SPECS["wide heads"]
    config = dataclasses.replace(load("tiny"), attention="two-scale", attention_bits=8)
    whole = calibrate(sharp(spec, 1), images_of(spec, 3, 1), config)
    calls: list[Call] = []
    inference.run(whole, images_of(spec, 1, 2), calls.append)
    codes = torch.cat([call.output.flatten() for call in calls if call.unit == "softmax"])
    form = whole.formats["blocks.0.attn.softmax"]
    assert isinstance(form, TwoScale) and form.m > 0
    assert 0.001 < float((codes >> 7).double().mean()) < 0.5


@pytest.mark.parametrize(("options", "changes"), [
    ({"stream": "o-2sf"}, {}), ({"stream": "o-2sf"}, {"norm_bits": 15}), ({"gelu": "uniform"}, {}),
    ({"gelu": "uniform", "stream": "o-2sf"}, {"attention": "uniform", "attention_bits": 8}),
], ids=str)
def test_other_codes_of_stream_and_gelu_give_the_networks_logits(
        options: dict[str, Any], changes: dict[str, Any]) -> None:
    spec = SPECS["padded everywhere"]
    config = dataclasses.replace(load("tiny"), **changes)
    model = Vit(spec).initialize(3).eval()
    with torch.no_grad():   # two channels of the stream lie far out
        model.pos_embed[..., [2, 11]] *= 400
    whole = calibrate(model, images_of(spec, 3, 1), config, **options)
    images = images_of(spec, 2, 2)
    compiled = compile_network(whole)
    for image, row in zip(images.split(1), inference.run(whole, images), strict=True):
        assert logits(compiled, image) == row.tolist()
    stream = whole.stream("embedding")
    if "stream" in options:
        shifts = set(stream.shift.tolist())
        assert shifts == {0, max(shifts)} and stream.shift[2] == stream.shift[11] == max(shifts)
        assert (max(shifts) > 3) == ("norm_bits" in changes)
    if "gelu" in options:
        found = whole.formats["blocks.0.mlp.act"]
        assert isinstance(found, Uniform) and found.zero_point > 0
        assert whole.requantizations["blocks.0.mlp.fc1"].encoding.kind == "uniform"


def test_what_an_earlier_run_left_does_not_matter() -> None:
    spec, config = SPECS["padded everywhere"], load("tiny")
    whole = calibrate(Vit(spec).initialize(3).eval(), images_of(spec, 3, 1), config)
    compiled, image = compile_network(whole), images_of(spec, 1, 2)
    state = State(config)
    generator = torch.Generator().manual_seed(0)
    for bank in state.banks.values():
        bank[:] = torch.randint(256, bank.shape, generator=generator)
    state.factors[:] = torch.randint(1, 99, state.factors.shape, generator=generator)
    state.probabilities[:] = 12345
    assert logits(compiled, image, state=state) == inference.run(whole, image)[0].tolist()


@pytest.mark.slow
def test_deit_tiny_gives_the_networks_logits() -> None:
    config = load("edge16")
    spec = lookup("deit_tiny_patch16_224").spec
    assert isinstance(spec, VitSpec)
    whole = calibrate(Vit(spec).initialize(0).eval(), images_of(spec, 2, 0), config)
    image = images_of(spec, 1, 9)
    assert logits(compile_network(whole), image) == inference.run(whole, image)[0].tolist()


# Single passes


def columns(cols: int, **given: Any) -> dict[str, Any]:
    values = {item.name: np.zeros(cols, np.int64) for item in PARAMETER.fields}
    return values | {"multiplier": np.ones(cols, np.int64)} | {
        name: np.broadcast_to(np.asarray(value, np.int64), cols) for name, value in given.items()}


def raw_pass(config: Config, weights: Any, bias: Any = 0, **fields: int) -> Instruction:
    given: dict[str, int] = {"operation": 3, "destination": 3, "weight_bits": 8, "tokens": 1,
                             "tiles": 1} | fields
    return Instruction("PASS", pass_fields(**given), None, columns(config.cols, bias=bias),
                       weights)


def run_passes(config: Config, passes: Sequence[Instruction], state: State, output: int = 4096,
               ) -> list[PassRecord]:
    records: list[PassRecord] = []
    program = assemble([*passes, Instruction("END", {})], config)
    run = execute(program, bytes(LINE), config, output, records.append, state)
    assert len(run.output) == output
    return records


def filled(config: Config, seed: int = 0) -> State:
    state = State(config)
    generator = torch.Generator().manual_seed(seed)
    for bank in state.banks.values():
        bank[:] = torch.randint(256, bank.shape, generator=generator)
    return state


@pytest.mark.parametrize("residual", [0, 1])
@pytest.mark.parametrize("by_column", [0, 1])
@pytest.mark.parametrize("stationary", [0, 1])
def test_raw_pass_multiplies_the_words_that_it_names(stationary: int, by_column: int,
                                                     residual: int) -> None:
    config, rng = load("tiny"), np.random.default_rng(3)
    state = filled(config)
    stream = rng.integers(-128, 128, (3, 4, 4)).astype(np.int8)
    item = raw_pass(config, None if stationary else stream, bias=[1, -2, 3, -(1 << 31)],
                    tokens=5, tiles=3, stationary=stationary, by_column=by_column, a_base=7,
                    a_stride=11, w_base=100, w_stride=9, operand_zero_point=5,
                    from_residual=residual, offset=64)
    (record,) = run_passes(config, [item], state)
    bank = state.banks["residual" if residual else "scratch"]
    fixed = state.banks["stationary"]
    acc = torch.zeros(5, 4, dtype=torch.int64)
    for token in range(5):
        for tile in range(3):
            word = bank[7 + 11 * tile + token] - 5
            for row in range(4):
                for col in range(4):
                    first, second = (col, row) if by_column and stationary else (row, col)
                    weight = int(fixed[100 + 9 * tile + first][second]) - 128 if stationary \
                        else int(stream[tile][first][second])
                    acc[token, col] += word[row] * weight
    assert torch.equal(record.acc, acc)
    wanted = acc + torch.tensor([1, -2, 3, -(1 << 31)])
    assert torch.equal(record.result, (wanted + (1 << 31)) % (1 << 32) - (1 << 31))


@pytest.mark.parametrize(("fields", "operand"), [
    ({"operand_zero_point": 255}, lambda c: c - 255),
    ({"operand_format": 1, "operand_bits": 8, "operand_m": 7, "operand_signed": 1},
     lambda c: (((c & 127) ^ 64) - 64) << 7 * (c >> 7)),
    ({"operand_format": 1, "operand_bits": 8, "operand_m": 2},
     lambda c: (c & 127) << 2 * (c >> 7)),
    ({"operand_format": 2, "operand_bits": 4}, lambda c: (1 << 15 - c) * (c != 15)),
])
def test_codes_become_operands(fields: dict[str, int], operand: Any) -> None:
    config = load("tiny")
    state = State(config)
    bits = fields.get("operand_bits", 8)
    state.banks["scratch"][:64] = torch.arange(256).reshape(64, 4) % (1 << bits)
    item = raw_pass(config, np.ones((1, 4, 4), np.int8), tokens=64, **fields)
    (record,) = run_passes(config, [item], state)
    wanted = torch.tensor([[operand(int(c)) for c in word]
                           for word in state.banks["scratch"][:64]])
    assert torch.equal(record.operands, wanted)


def test_blank_token_and_result_addresses() -> None:
    config = load("tiny")
    state = filled(config)
    before = state.banks["residual"].clone()
    item = Instruction("PASS", pass_fields(
        tokens=3, tiles=1, weight_bits=2, blank_first=1, d_base=50, destination=1, bits=8,
        zero_point=9), None, columns(4, encode_shift=[0, 1, 0, 0]),
        np.eye(4, dtype=np.int8)[None])
    (record,) = run_passes(config, [item], state)
    codes = state.banks["scratch"][1:3]
    wanted = torch.stack((codes[:, 0], codes[:, 1] + 1 >> 1, codes[:, 2], codes[:, 3]), 1) + 9
    assert torch.equal(record.result[1:], wanted.clamp_max(255))
    assert record.result[0].tolist() == [9] * 4
    before[50:53] = record.result
    assert torch.equal(state.banks["residual"], before)


@pytest.mark.parametrize(("bias", "wanted"), [(0, -(1 << 31)), (1, 1 - (1 << 31)),
                                              (-1, (1 << 31) - 1)])
def test_extreme_sums_are_exact(bias: int, wanted: int) -> None:
    config = load("tiny")
    state = State(config)   # code 0 of log2 is the largest operand, 2**15
    item = raw_pass(config, np.full((128, 4, 4), -128, np.int8), bias=bias, tiles=128,
                    operand_format=2, operand_bits=4)
    (record,) = run_passes(config, [item], state)
    assert record.acc[0].tolist() == [-(1 << 31)] * 4
    assert record.result[0].tolist() == [wanted] * 4


@pytest.mark.parametrize("encoding", [
    Encoding(kind="table", bits=2, thresholds=(-300, 5, 6)),
    Encoding(kind="log2", bits=4), Encoding(kind="two-scale", bits=8, m=3, signed=True)], ids=str)
def test_thresholds_hold_for_the_passes_after(encoding: Encoding) -> None:
    config = load("tiny")
    state = filled(config)
    fields = pass_fields(tokens=40, tiles=1, weight_bits=8, format=FORMATS[encoding.kind],
                         bits=encoding.bits, m=encoding.m, signed=int(encoding.signed),
                         operand_zero_point=128)
    block = columns(4, encode_shift=1)
    weights = np.diag([1, -3, 0, 40]).astype(np.int8)[None]
    first = Instruction("PASS", fields | {"has_thresholds": 1, "d_base": 100}, None, block, weights,
                        thresholds=thresholds(encoding, 1, config))
    second = Instruction("PASS", fields | {"a_base": 300, "d_base": 200}, None, block, weights)
    records = run_passes(config, [first, second], state)
    for record in records:
        wanted = encode(record.acc, encoding, 1, config)
        assert torch.equal(record.result, wanted)
        assert len(wanted.unique()) > 2


def test_accumulators_wrap_as_adders_do() -> None:
    config = load("tiny")
    fields = pass_fields(tokens=1, tiles=129, weight_bits=8, operand_format=2, operand_bits=4,
                         bits=8, zero_point=128)
    weights = np.full((129, 4, 4), -128, np.int8)
    # -2**31 - 2**24 is 2**31 - 2**24 in 32 bits; a shift of 25 leaves its sign in sight.
    item = Instruction("PASS", fields, None, columns(4, shift=25), weights)
    (record,) = run_passes(config, [item], State(config))
    assert record.acc[0].tolist() == [(1 << 31) - (1 << 24)] * 4
    assert record.result[0].tolist() == [128 + 64] * 4


# Faults


def good_load(config: Config, **change: int) -> Instruction:
    spec = VitSpec(image_size=8, patch_size=4, dim=4, heads=1)
    return Instruction("LOAD", Patches(spec, config).load(0) | change)


FAULTY: list[tuple[str, list[dict[str, int]], str]] = [
    ("PASS", [{"tokens": 0}, {"tokens": 65}, {"tiles": 0}, {"operand": 1, "tiles": 17}],
     "bad length"),
    ("PASS", [{"weight_bits": 1}, {"weight_bits": 9}, {"operand": 3}, {"statistics": 3},
              {"destination": 0}, {"operation": 0}, {"statistics": 1},
              {"operation": 0, "destination": 0, "bits": 1},
              {"operation": 0, "destination": 0, "bits": 10},
              {"operation": 0, "destination": 0, "bits": 12, "format": 1},
              {"operation": 0, "destination": 0, "bits": 5, "format": 2},
              {"operation": 1, "destination": 0, "bits": 8, "multiplier2": 1 << 17},
              {"operation": 2, "destination": 1, "bits": 8, "multiplier2": 1 << 17},
              {"operand": 2, "softmax_multiplier": 1 << 17}], "bad field"),
    ("PASS", [{"offset": 32}], "misaligned address"),
    ("PASS", [{"offset": 4096}, {"offset": 4032, "tokens": 5}], "address outside the window"),
    ("PASS", [{"a_base": 2048}, {"a_base": 2040, "tokens": 9}, {"a_stride": 1024, "tiles": 3},
              {"stationary": 1, "w_base": 1021}, {"a_base": 1024, "from_residual": 1},
              {"operation": 0, "destination": 2, "d_base": 1024, "bits": 8}],
     "scratchpad overflow"),
    ("LOAD", [{"bytes": 0}, {"count_4": 5}], "bad length"),
    ("LOAD", [{"bytes": 32}, {"offset": 8}], "misaligned address"),
    ("LOAD", [{"bytes": 128}, {"offset": 64}], "address outside the window"),
    ("LOAD", [{"destination": 2}, {"count_5": 0}, {"piece": 0}, {"piece": 3}], "bad field"),
    ("LOAD", [{"base": 2048}, {"delta_0": -9}], "scratchpad overflow"),
]


@pytest.mark.parametrize(("kind", "change", "fault"), [
    (kind, change, fault) for kind, changes, fault in FAULTY for change in changes], ids=str)
def test_faults_have_the_kinds_of_the_register(kind: str, change: dict[str, int],
                                               fault: str) -> None:
    config = load("tiny")
    tiles = change.get("tiles", 1)
    fine = raw_pass(config, np.zeros((1, 4, 4), np.int8))
    weights = None if change.get("stationary") else np.zeros((tiles, 4, 4), np.int8)
    if "weight_bits" in change:   # only refused once it is read: assembled as 8 bits
        wrong = raw_pass(config, weights)
    else:
        wrong = raw_pass(config, weights, **change) if kind == "PASS" \
            else good_load(config, **change)
    program = bytearray(assemble([fine, good_load(config), wrong, Instruction("END", {})], config))
    if "weight_bits" in change:
        place = fine.size(config) + LINE
        head = int.from_bytes(program[place:place + 4], "little")
        head = head & ~(15 << 10) | change["weight_bits"] << 10
        program[place:place + 4] = head.to_bytes(4, "little")
    assert fault in FAULTS
    with pytest.raises(Fault) as caught:
        execute(bytes(program), bytes(LINE), config, 4096)
    assert (caught.value.kind, caught.value.instruction) == (fault, 2)


def test_what_stands_for_the_faults_is_fine_without_them() -> None:
    config = load("tiny")
    passes = [raw_pass(config, np.zeros((1, 4, 4), np.int8)), good_load(config)]
    execute(assemble([*passes, Instruction("END", {})], config), bytes(LINE), config, 4096)


def test_buffers_have_whole_lines() -> None:
    config = load("tiny")
    program = assemble([Instruction("END", {})], config)
    assert execute(program, b"", config, 0).passes == 0
    for parts in ((b"", b"", 0), (program[:32], b"", 0), (program, b"1", 0), (program, b"", 32)):
        with pytest.raises(Fault) as caught:
            execute(parts[0], parts[1], config, parts[2])
        assert caught.value.kind == "bad length"


def test_unknown_opcodes_and_missing_ends() -> None:
    config = load("tiny")
    end = assemble([Instruction("END", {})], config)
    for opcode in (0, 4, 255):
        with pytest.raises(Fault) as caught:
            execute(bytes([opcode]).ljust(LINE, b"\0") + end, b"", config, 0)
        assert (caught.value.kind, caught.value.address) == ("unknown opcode", opcode)
    assert str(caught.value) == "instruction 0: unknown opcode (opcode 255)"
    item = raw_pass(config, np.zeros((9, 4, 4), np.int8), tiles=9)
    program = assemble([item], config)
    for size in range(LINE, len(program) + 1, LINE):
        with pytest.raises(Fault) as caught:
            execute(program[:size], b"", config, 4096)
        assert caught.value.kind == "program without end"
        assert caught.value.instruction == (size == len(program))


def test_damaged_programs_end_in_a_fault_or_at_their_end() -> None:
    spec, config = dataclasses.replace(SPECS["one head"], depth=1), load("edge8")
    whole = calibrate(Vit(spec).initialize(3).eval(), images_of(spec, 3, 1), config)
    compiled = compile_network(whole)
    image = input_buffer(images_of(spec, 1, 2), compiled)
    starts = np.cumsum([0, *(item.size(config) for item in compiled.instructions)])
    rng = np.random.default_rng(5)
    kinds: dict[str, int] = {}
    for _ in range(100):
        program = bytearray(compiled.program)
        place = int(starts[rng.integers(len(starts) - 1)] + rng.integers(52))
        program[place] ^= 1 << int(rng.integers(8))
        kind = "none"
        try:
            execute(bytes(program), image, config, compiled.output_bytes)
        except Fault as fault:
            kind = fault.kind
        kinds[kind] = kinds.get(kind, 0) + 1
    assert set(kinds) <= set(FAULTS)
    assert len(kinds) >= 5 and kinds["none"] > 10, kinds


def test_codes_behind_the_last_channel_of_a_row_are_no_elements_of_it() -> None:
    # Rows of 6 channels on an array of 4 rows, some of them far from 0 and close together.
    spec = VitSpec(image_size=12, patch_size=4, in_channels=2, classes=3, dim=6, depth=2, heads=2,
                   mlp_hidden=12)
    images = images_of(spec, 2, 1)
    network = calibrate(Vit(spec).initialize(1).eval(), images, load("tiny"))
    assert logits(compile_network(network), images[:1]) \
        == inference.run(network, images[:1])[0].tolist()
