# SPDX-License-Identifier: Apache-2.0
"""The whole accelerator as generated Verilog: bytes, restarts, faults, on an unpleasant memory."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import compile_network
from gen.compiler.image import Patches, inline_load
from gen.compiler.steps import pass_fields
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import Buffers, predict
from golden.machine.execute import execute
from golden.machine.program import Fault, Instruction, assemble, parse, pass_channels
from golden.network.calibrate import calibrate
from sim.accelerator.model import Case, Job, Outcome, Simulation, build
from tests.sample import later, leading
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import INSTRUCTIONS, LINE, NORM_PARAMETER, OPERATIONS, PARAMETER
from vitforge.spec.register_map import COUNTERS, FAULTS

pytestmark = pytest.mark.rtl

#: Bytes of the memory of all models here.
SIZE = 1 << 20
#: No job here takes as many cycles, on any memory.
LIMIT = 200_000
DONE, FAULT, STOPPED = 2, 4, 8
SLVERR, DECERR = 2, 3
#: What is in memory where nothing is.
FILL = b"\xA5"
#: Of random networks.
SEED = 7

SPECS = {
    "one block": VitSpec(image_size=8, patch_size=4, in_channels=1, classes=6, dim=8, depth=1,
                         heads=2, mlp_hidden=12),
    "padded everywhere": VitSpec(image_size=12, patch_size=4, in_channels=3, classes=5, dim=18,
                                 depth=2, heads=3, mlp_hidden=22),
    "one head": VitSpec(image_size=8, patch_size=8, in_channels=2, classes=9, dim=8, depth=2,
                        heads=1, mlp_hidden=8),
}


@cache
def machine(config: Config) -> Simulation:
    return build(config, size=SIZE, brief=True)


@dataclass(frozen=True)
class Work:
    """A program with its input, and what it leaves in an output buffer of `FILL`."""

    program: bytes
    image: bytes
    wanted: bytes


def network(name: str, config: Config) -> Work:
    return random_network(SPECS[name], config)


@cache
def random_network(spec: VitSpec, config: Config) -> Work:
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    compiled = compile_network(calibrate(Vit(spec).initialize(SEED).eval(), images, config))
    image = input_buffer(images[2:], compiled)
    return Work(compiled.program, image,
                output_of(compiled.program, image, config, compiled.output_bytes))


def output_of(program: bytes, image: bytes, config: Config, size: int) -> bytes:
    """Return what the golden machine leaves in an output buffer of `FILL`.

    Raises
    ------
    Fault
        If it ends in one.
    """
    written = bytearray(FILL * size)
    run = execute(program, image, config, size)
    for item in parse(program, config, image=len(image), output=size):
        if item.kind == "PASS" and item.fields["operation"] == OPERATIONS["raw"]:
            low = item.fields["offset"]
            high = low + item.fields["tokens"] * pass_channels(item.fields, config) * 4
            written[low:high] = run.output[low:high]
    return bytes(written)


class Memory:
    """Buffers with a line of something else between them, and jobs on them."""

    def __init__(self) -> None:
        self.data = bytearray(FILL * LINE)

    def add(self, block: bytes) -> tuple[int, int]:
        """Return address and size of a new buffer."""
        buffer = len(self.data), len(block)
        self.data += block + FILL * (-len(block) % LINE + LINE)
        return buffer

    def job(self, work: Work, name: str = "", **more: int) -> Job:
        """Make a job with buffers of its own."""
        return Job(name, self.add(work.program), self.add(work.image),
                   self.add(FILL * len(work.wanted)), LIMIT, **more)

    def run(self, config: Config, jobs: Sequence[Job], **plusargs: int) -> list[Outcome]:
        return machine(config).run(Case(bytes(self.data), jobs, plusargs))


def quiet(outcome: Outcome) -> None:
    """Nothing is left undone on the bus, no rule was broken, and no byte written elsewhere."""
    assert outcome.interrupt == 1, f"{outcome.name}: no interrupt"
    marks = [outcome.values[name] for name in ("pending", "late", "violation", "stray")]
    assert marks == [0] * 4, outcome.values


def good(outcome: Outcome, work: Work) -> None:
    quiet(outcome)
    assert (outcome.STATUS, outcome.FAULT, outcome.IRQ_STATUS) == (DONE, 0, 1), outcome.values
    assert outcome.output == work.wanted, outcome.name


def faulty(outcome: Outcome, kind: str, instruction: int | None = None,
           address: int | None = 0) -> None:
    quiet(outcome)
    stopped = STOPPED if kind == "stopped" else 0
    assert (outcome.STATUS, outcome.FAULT, outcome.IRQ_STATUS) == (
        FAULT | stopped, FAULTS[kind], 2), outcome.values
    if instruction is not None:
        assert outcome.FAULT_INSTRUCTION == instruction, outcome.values
    if address is not None:
        assert outcome.FAULT_ADDRESS == address, outcome.values


# Any memory

#: Slow and irregular, and the other ways in which a memory may be unpleasant.
UNPLEASANT = {"stall": 128, "jitter": 63, "order": 4}
MEMORIES = [UNPLEASANT, later({}), later({"latency": 300}), later({"latency": 2, "stall_r": 200}),
            later({"order": 2, "stall_aw": 250})]

STALLS: list[dict[str, int]] = [
    {}, {"stall": 100, "jitter": 63}, {"order": 1}, {"order": 2}, {"order": 3},
    {"latency": 2}, {"latency": 200, "stall_ar": 200}, {"stall_r": 200},
    {"stall_aw": 240, "stall_w": 128}, {"stall_w": 240}, {"stall_b": 250},
    {"stall": 200, "jitter": 255, "latency": 9, "order": 4},
]
#: Each channel by itself, and every order, but not one by one.
SOME = [{"latency": 200, "stall_ar": 200, "order": 1}, {"stall_r": 200, "order": 2},
        {"stall_aw": 240, "stall_w": 128, "order": 3}, {"stall_b": 250, "latency": 2}, STALLS[-1]]


def networks_are_exact(config: Config, stalls: dict[str, int], names: Sequence[str]) -> None:
    memory = Memory()
    works = [network(name, config) for name in names]
    jobs = [memory.job(work, name) for work, name in zip(works, names, strict=True)]
    outcomes = memory.run(config, [*jobs, *jobs], seed=5, **stalls)
    for outcome, work in zip(outcomes, [*works, *works], strict=True):
        good(outcome, work)


@pytest.mark.parametrize("stalls", [*leading(3, SOME), *map(later, STALLS[:-1])], ids=str)
def test_networks_are_exact_on_any_memory(stalls: dict[str, int]) -> None:
    networks_are_exact(load("tiny"), stalls, ["one block", "padded everywhere"])


WIDE = [dataclasses.replace(load("tiny"), name=f"tiny{bits}", axi_bits=bits)
        for bits in (128, 256, 512)]
#: Words of 16 codes and sums of 8 lanes are more than a beat.
WIDE.append(dataclasses.replace(load("tiny"), name="narrow", rows=8, cols=8, lanes=4))


@pytest.mark.slow
@pytest.mark.parametrize("config", WIDE, ids=lambda config: config.name)
def test_networks_are_exact_at_any_width(config: Config) -> None:
    for stalls in STALLS:
        networks_are_exact(config, stalls, ["one block", "padded everywhere", "one head"])


def test_cycles_are_as_predicted_in_the_orders_that_are_modelled() -> None:
    # Two passes of many bursts each: the first of one address and of the other.
    config, memory = load("tiny"), Memory()
    program = assemble([raw_pass(config, tokens=60), raw_pass(config, tokens=57, offset=1024),
                        Instruction("END", {})], config)
    image = bytes(range(LINE))
    job = memory.job(Work(program, image, output_of(program, image, config, 2048)), "raw")
    wanted = predict(program, config, latency=60,
                     buffers=Buffers(job.program[0], job.input[0], job.output[0]))
    cycles = {}
    for order in range(5):
        (outcome,) = memory.run(config, [job], order=order, latency=60)
        quiet(outcome)
        assert outcome.output == output_of(program, image, config, 2048)
        cycles[order] = outcome.cycles
        if order in (0, 3):
            assert {name: outcome.values[name] for name in COUNTERS} == {
                name: getattr(wanted, name) for name in COUNTERS}
    assert cycles[0] < min(cycles[1], cycles[4]) and cycles[1] < cycles[2]


# Restarts


@pytest.mark.parametrize("stalls", [later({}), {"latency": 300}, UNPLEASANT], ids=str)
def test_restarts_at_once_after_done(stalls: dict[str, int]) -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    # What is behind END is read ahead, and must not be taken for the next run's.
    longer = dataclasses.replace(work, program=work.program + work.program)
    jobs = [memory.job(one, repeat=3) for one in (work, longer, work)]
    for outcome in memory.run(config, jobs, **stalls):
        good(outcome, work)


@pytest.mark.parametrize("stalls", MEMORIES, ids=str)
def test_a_run_after_a_stop_is_right(stalls: dict[str, int]) -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    rng = np.random.default_rng(3)
    job = memory.job(work, "good")
    (outcome,) = memory.run(config, [job], **stalls)
    cycles = outcome.cycles
    ends = [*range(1, 8), *range(70, 200, 11), *rng.integers(8, cycles, 15),
            *range(cycles - 400, cycles + 400, 37)]
    jobs = [one for stop in ends
            for one in (dataclasses.replace(job, name=f"stop {stop}", stop=int(stop)), job)]
    outcomes = memory.run(config, jobs, **stalls)
    stopped = 0
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        good(second, work)
        if first.STATUS == DONE:
            good(first, work)
        else:
            faulty(first, "stopped")
            stopped += 1
    assert 30 <= stopped < len(ends)


# Faults of programs


def raw_pass(config: Config, **fields: int) -> Instruction:
    given = {"operation": 3, "destination": 3, "weight_bits": 8, "tokens": 1, "tiles": 1} | fields
    parameters = {item.name: np.arange(config.cols) for item in PARAMETER.fields}
    weights = None if given.get("stationary") else \
        np.ones((given["tiles"], config.rows, config.cols), np.int8)
    return Instruction("PASS", pass_fields(**given), None, parameters, weights)


def image_load(config: Config, **change: int) -> Instruction:
    spec = VitSpec(image_size=8, patch_size=4, dim=4, heads=1)
    return Instruction("LOAD", Patches(spec, config).load(0) | change)


#: Changes of an instruction that make it wrong.
WRONG: dict[str, list[dict[str, int]]] = {
    "PASS": [
        {"tokens": 0}, {"tokens": 65}, {"tokens": 4095}, {"tiles": 0}, {"operand": 1, "tiles": 17},
        {"weight_bits": 0}, {"weight_bits": 1}, {"weight_bits": 9}, {"operand": 3},
        {"statistics": 3}, {"destination": 0}, {"operation": 0}, {"statistics": 1},
        {"offset": 32}, {"offset": 512}, {"offset": 448, "tokens": 5}, {"offset": 0xFFFFFFC0},
        {"a_base": 2048}, {"a_base": 2040, "tokens": 9}, {"a_stride": 1024, "tiles": 3},
        {"a_base": 0xFFFFFF}, {"stationary": 1, "w_base": 1021},
        {"stationary": 1, "w_base": 0, "w_stride": 1 << 20, "tiles": 2},
        {"a_base": 1024, "from_residual": 1},
        {"operation": 0, "destination": 0, "d_base": 2048, "bits": 8},
        {"operation": 0, "destination": 1, "d_base": 1020, "tokens": 5, "bits": 8},
        {"operation": 0, "destination": 2, "d_base": 1024, "bits": 8},
        {"operation": 2, "destination": 1, "d_base": 1024, "bits": 8},
        {"operation": 0, "destination": 0, "bits": 10},
        {"operation": 0, "destination": 0, "bits": 12, "format": 1},
        {"operation": 0, "destination": 0, "bits": 5, "format": 3},
        {"operation": 1, "destination": 0, "bits": 8, "multiplier2": 1 << 17},
        {"operand": 2, "softmax_multiplier": 1 << 17}],
    "LOAD": [
        {"bytes": 0}, {"count_4": 5}, {"bytes": 32}, {"offset": 8}, {"bytes": 128}, {"offset": 64},
        {"offset": 0xFFFFFFC0}, {"bytes": 0xFFFFFFC0}, {"destination": 2}, {"destination": 3},
        {"count_5": 0}, {"piece": 0}, {"piece": 3}, {"base": 2048}, {"base": (1 << 24) - 1},
        {"delta_0": -9}],
}


def head_with(instruction: Instruction, config: Config, **change: int) -> bytes:
    """Bytes of an instruction of which fields are changed, but not the blocks behind it."""
    whole = assemble([instruction], config)
    word = INSTRUCTIONS[instruction.kind]
    values = {name: int(value[0]) for name, value in
              word.unpack([int.from_bytes(whole[:LINE], "little")]).items()} | change
    head = word.pack({name: [value] for name, value in values.items()})[0]
    return head.to_bytes(LINE, "little") + whole[LINE:]


def wrong_programs(config: Config) -> Iterator[tuple[str, bytes]]:
    before = assemble([raw_pass(config), image_load(config), raw_pass(config, offset=64)], config)
    end = assemble([Instruction("END", {})], config)
    yield "fine", before + end
    for change in WRONG["PASS"]:
        blocks = {name: change[name] for name in ("tiles", "stationary") if change.get(name)}
        yield f"PASS {change}", before + head_with(raw_pass(config, **blocks), config,
                                                   **change) + end
    for change in WRONG["LOAD"]:
        yield f"LOAD {change}", before + head_with(image_load(config), config, **change) + end
    inline = inline_load(0, 8, config)
    for change in ({"bytes": 0}, {"bytes": 30}, {"base": 2041}, {"destination": 2}):
        changed = head_with(Instruction("LOAD", inline, data=bytes(32)), config, **change)
        yield f"inline {change}", before + changed + end
    for opcode in (0, 4, 255):
        yield f"opcode {opcode}", before + bytes([opcode]).ljust(LINE, b"\1") + end
    last = assemble([raw_pass(config, tiles=9)], config)
    for size in range(0, len(last) + 1, LINE):
        yield f"{size} bytes, no end", before + last[:size]
    norm = Instruction("PASS", pass_fields(
        tokens=1, tiles=2, weight_bits=8, has_norm=1, has_thresholds=1, bits=8), {
            item.name: np.zeros(2 * config.rows, np.int64) for item in NORM_PARAMETER.fields},
        {item.name: np.zeros(config.cols, np.int64) for item in PARAMETER.fields},
        np.zeros((2, config.rows, config.cols), np.int8), thresholds=(0,) * 15)
    for size in range(LINE, 4 * LINE, LINE):
        yield f"norm, {size} bytes", before + assemble([norm], config)[:size]


@pytest.mark.parametrize("stalls", MEMORIES, ids=str)
def test_a_wrong_program_ends_in_its_fault(stalls: dict[str, int]) -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    job, image, output = memory.job(work, "good"), bytes(range(LINE)), 512
    buffers = memory.add(image), memory.add(FILL * output)
    programs = dict(wrong_programs(config))
    jobs = [one for name, program in programs.items()
            for one in (Job(name, memory.add(program), *buffers, LIMIT, repeat=1), job)]
    outcomes = memory.run(config, jobs, **stalls)
    kinds = set()
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        good(second, work)
        try:
            wanted = output_of(programs[first.name], image, config, output)
        except Fault as fault:
            # The hardware reads ahead of what it does, and may then name a later instruction.
            overflow = fault.kind == "scratchpad overflow"
            faulty(first, fault.kind, None if overflow else fault.instruction, fault.address)
            assert 3 <= fault.instruction <= first.FAULT_INSTRUCTION
            kinds.add(fault.kind)
        else:
            assert first.name == "fine"
            good(first, Work(b"", image, wanted))
    assert kinds == {"unknown opcode", "misaligned address", "bad length", "bad field",
                     "address outside the window", "scratchpad overflow", "program without end"}


def test_wrong_buffers_are_refused() -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    job = memory.job(work, "good")
    jobs: list[Job] = []
    wanted: list[tuple[str, int]] = []
    for name in ("program", "input", "output"):
        address, size = getattr(job, name)
        for buffer, kind in (((address + 8, size), "misaligned address"),
                             ((address, size + 32), "bad length"),
                             ((0xFFFFFFC0, 128), "address outside the window")):
            jobs += [dataclasses.replace(job, **{name: buffer}), job]
            wanted.append((kind, buffer[0]))
    jobs += [dataclasses.replace(job, program=(job.program[0], 0)), job]
    wanted.append(("bad length", job.program[0]))
    outcomes = memory.run(config, jobs)
    for first, second, (kind, where) in zip(outcomes[::2], outcomes[1::2], wanted, strict=True):
        faulty(first, kind, 0, where)
        assert first.cycles == 1
        good(second, work)


# Faults of the memory


@pytest.mark.parametrize("stalls", MEMORIES, ids=str)
@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize(("channel", "part"), [
    ("program", 0.5), ("input", 0), ("output", 1), later("program", 0), later("program", 1),
    later("input", 0.5), later("output", 0)])
def test_an_error_of_the_memory_ends_the_run(channel: str, part: float, response: int,
                                             stalls: dict[str, int]) -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    bad, job = memory.job(work, "bad", repeat=1), memory.job(work, "good")
    address, size = getattr(bad, channel)
    which = "write" if channel == "output" else "read"
    kind = f"{which} {'DECERR' if response == DECERR else 'SLVERR'}"
    low = address + int((size - LINE) * part) // LINE * LINE
    errors = {"error_low": low + 8, "error_high": low + 16, f"{which}_error": response}
    outcomes = memory.run(config, [bad, job, bad, job], **errors, **stalls)
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        faulty(first, kind, address=low)
        good(second, work)


@pytest.mark.parametrize("channel", ["program", "input", "output"])
def test_where_no_memory_is_is_said(channel: str) -> None:
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    job = memory.job(work, "good")
    beyond = dataclasses.replace(job, **{channel: (SIZE, getattr(job, channel)[1])})
    last = dataclasses.replace(job, **{channel: (0xFFFF0000, getattr(job, channel)[1])})
    outcomes = memory.run(config, [beyond, job, last, job])
    kind = "write DECERR" if channel == "output" else "read DECERR"
    faulty(outcomes[0], kind, address=SIZE)
    faulty(outcomes[2], kind, address=0xFFFF0000)
    good(outcomes[1], work)
    good(outcomes[3], work)


# Anything


def fault_of(program: bytes, work: Work, config: Config) -> str:
    """Return the kind of fault that the golden machine finds."""
    try:
        execute(program, work.image, config, len(work.wanted))
    except Fault as fault:
        return fault.kind
    return "none"


def damaged_programs_end(seed: int, count: int, **stalls: int) -> set[str]:
    """Run programs with bits that are wrong; return the kinds of faults that were found."""
    config, memory = load("tiny"), Memory()
    work = network("one block", config)
    job = memory.job(work, "good")
    starts = np.cumsum([0, *(item.size(config) for item in parse(work.program, config))])
    rng = np.random.default_rng(seed)
    jobs, programs = [], []
    for number in range(count):
        program = bytearray(work.program)
        for _ in range(rng.integers(1, 4)):
            # In the first bytes, where all fields are.
            where = int(starts[rng.integers(len(starts) - 1)] + rng.integers(52))
            program[where] ^= 1 << int(rng.integers(8))
        programs.append(bytes(program))
        # What it leaves in an output buffer of its own is nobody's business.
        jobs += [dataclasses.replace(job, name=str(number), program=memory.add(programs[-1]),
                                     output=memory.add(FILL * len(work.wanted))), job]
    outcomes = memory.run(config, jobs, seed=seed, **stalls)
    names = {number: name for name, number in FAULTS.items()}
    kinds = set()
    for program, first, second in zip(programs, outcomes[::2], outcomes[1::2], strict=True):
        good(second, work)
        wanted = fault_of(program, work, config)
        found = names[first.FAULT]
        if wanted == "program without end" and found == "scratchpad overflow":
            # A pass runs while its weights are still being read: what it does before they end
            # is what it does if they are all there.
            wanted = fault_of(program + bytes(1 << 22), work, config)
        quiet(first)
        assert first.STATUS == (FAULT if first.FAULT else DONE)
        # The golden machine also refuses what the hardware takes as it is, like thresholds that
        # are not those of the format; but then it may find another fault further on. And a pass
        # reaches beyond a bank only after the instructions behind it have been read.
        if wanted == "scratchpad overflow":
            assert found != "none", first.values
        elif wanted != "bad field":
            assert found == wanted, first.values
        kinds.add(found)
    return kinds


@pytest.mark.thorough
def test_damaged_programs_end() -> None:
    assert len(damaged_programs_end(1, 30, **UNPLEASANT)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_damaged_programs_end(seed: int) -> None:
    stalls = {"stall": int(seed % 3 * 64), "jitter": (1 << seed % 6) - 1, "latency": 2 + 9 * seed}
    damaged_programs_end(seed, 90, **stalls)
