# SPDX-License-Identifier: Apache-2.0
"""Corrupted programs, on the golden machine and on the generated Verilog.

A field of an instruction or of a channel's parameters gets another value, often one near the end of
its range, or a few bits of the program are flipped. The golden machine says what has to come of it:
the kind of the fault, the instruction and the address, or the bytes of the output.
"""

__all__ = ["Wanted", "differences", "pairs", "wanted_of", "whole_program"]

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from gen.compiler.check import hazards
from gen.compiler.command import input_buffer
from gen.compiler.compile import compile_network
from golden.float.vit import Vit, VitSpec
from golden.machine.execute import execute
from golden.machine.program import (
    Fault,
    Instruction,
    block_bytes,
    lines,
    parse,
    pass_channels,
)
from golden.machine.state import State
from golden.network.calibrate import calibrate
from sim.accelerator.model import Case, Job, Simulation, build
from vitforge.spec.config import Config
from vitforge.spec.instruction import INSTRUCTIONS, LATE_NEVER, LINE, OPERATIONS, PARAMETER
from vitforge.spec.register_map import FAULTS
from vitforge.spec.sizes import doubled, paired
from vitforge.spec.words import Word

#: Bytes of the memory, cycles of the watchdog, and values of STATUS.
SIZE = 1 << 20
LIMIT = 200_000
DONE, FAULT = 2, 4
#: The network whose program is corrupted.
SPEC = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=6, dim=8, depth=1, heads=2,
               mlp_hidden=12)


@cache
def machine(config: Config, brief: bool) -> Simulation:
    """Return the model, and build it if it isn't there."""
    return build(config, size=SIZE, brief=brief)


@cache
def whole_program(config: Config) -> tuple[bytes, bytes, int, list[Instruction]]:
    """Return a network's program, its input, its output's size, and its instructions."""
    images = torch.randint(256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(7))
    images = images.to(torch.uint8)
    bits, gelu = (4, "uniform") if paired(config) else (None, None)
    compiled = compile_network(calibrate(Vit(SPEC).initialize(7).eval(), images, config, bits,
                                         gelu=gelu, activation_bits=4 if doubled(config) else 8))
    return (compiled.program, input_buffer(images[2:], compiled), compiled.output_bytes,
            list(parse(compiled.program, config)))


def extreme(rng: np.random.Generator, bits: int) -> int:
    """Draw a value of so many bits, often near an end of their range or of a smaller one."""
    if rng.integers(2):
        return int(rng.integers(1 << bits))
    near = 1 << int(rng.integers(bits + 1))
    return (near + int(rng.integers(-1, 2))) % (1 << bits)


def with_field(block: bytes, word: Word, rng: np.random.Generator) -> tuple[str, bytes]:
    """Give one field of a word another value."""
    number, offset = int.from_bytes(block, "little"), 0
    fields = [item for item in word.fields if not item.name.startswith("reserved")]
    chosen = fields[int(rng.integers(len(fields)))]
    for item in word.fields:
        if item is chosen:
            break
        offset += item.bits
    mask = (1 << chosen.bits) - 1
    value = extreme(rng, chosen.bits)
    number = number & ~(mask << offset) | value << offset
    return f"{chosen.name} {value}", number.to_bytes(len(block), "little")


def corrupted(rng: np.random.Generator, config: Config) -> tuple[str, bytes]:
    """Change a field of an instruction or of a channel's parameters, or flip a few bits."""
    program, _, _, items = whole_program(config)
    number, kind = int(rng.integers(len(items))), int(rng.integers(10))
    item, start = items[number], sum(before.size(config) for before in items[:number])
    if kind < 2:
        found = bytearray(program)
        places = [int(rng.integers(8 * len(program))) for _ in range(int(rng.integers(1, 4)))]
        for place in places:
            found[place >> 3] ^= 1 << (place & 7)
        return f"bits {places}", bytes(found)
    size, word = LINE, INSTRUCTIONS[item.kind]
    if kind < 4 and item.kind == "PASS":
        _, _, parameters, weights = block_bytes(item.fields, config)
        start += item.size(config) - lines(weights) - lines(parameters)
        channels = pass_channels(item.fields, config)
        start += int(rng.integers(channels)) * PARAMETER.bits // 8
        size, word = PARAMETER.bits // 8, PARAMETER
    name, block = with_field(program[start:start + size], word, rng)
    return f"instruction {number}: {name}", program[:start] + block + program[start + size:]


def drawn_state(config: Config, seed: int) -> State:
    """Memories as nobody knows them."""
    state, generator = State(config), torch.Generator().manual_seed(seed)
    for bank in state.banks.values():
        bank[:] = torch.randint(256, bank.shape, generator=generator)
    state.factors[:] = torch.randint(1, 99, state.factors.shape, generator=generator)
    state.probabilities[:] = torch.randint(9999, state.probabilities.shape, generator=generator)
    state.sums[:] = torch.randint(999, state.sums.shape, generator=generator)
    state.references[:] = torch.randint(9, state.references.shape, generator=generator)
    state.totals[:] = torch.randint(1 << 16, state.totals.shape, generator=generator)
    state.thresholds = tuple(torch.randint(999, (15,), generator=generator).tolist())
    return state


@dataclass(frozen=True)
class Wanted:
    """What the golden machine says of a program; no output if it isn't certain."""

    fault: Fault | None
    output: bytes | None


def in_order(program: bytes, config: Config) -> bool:
    """Whether no pass reads what another one has not written yet (`late` and `pending`)."""
    items: list[Instruction] = list(parse(program, config))
    try:
        needed = hazards(items, config)
    except (ValueError, IndexError):
        return False
    passes = [item.fields for item in items if item.kind == "PASS"]
    # Thresholds stay from run to run.
    first = next((number for number, fields in enumerate(passes) if fields["has_thresholds"]),
                 len(passes))
    if any(fields["format"] and fields["operation"] != OPERATIONS["raw"]
           for fields in passes[:first]):
        return False
    return all(late == LATE_NEVER or (fields["late"] <= late and fields["pending"] <= pending)
               for fields, (late, pending) in zip(passes, needed, strict=True))


def wanted_of(program: bytes, config: Config) -> Wanted:
    """Ask the golden machine, with empty memories and two kinds of noise in them.

    Noise alone isn't enough: codes that no format has often mean the same, whatever they are.
    """
    outputs = []
    for state in (State(config), drawn_state(config, 1), drawn_state(config, 2)):
        try:
            _, image, output, _ = whole_program(config)
            run = execute(program, image, config, output, state=state)
        except Fault as fault:
            return Wanted(fault, None)
        outputs.append(run.output)
    certain = outputs[0] == outputs[1] == outputs[2] and in_order(program, config)
    return Wanted(None, outputs[0] if certain else None)


def pairs(count: int, seed: int, config: Config) -> Iterator[tuple[str, bytes]]:
    """Yield corrupted programs, and what is wrong with each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield corrupted(rng, config)


def differences(count: int, seed: int, config: Config, *, brief: bool = False, **stalls: int
                ) -> tuple[list[str], Counter[str]]:
    """Run corrupted programs of a small network on both machines.

    Parameters
    ----------
    count, seed
        How many, and what they are drawn from.
    brief
        Whether the model is compiled without optimisation (`sim.accelerator.model.build`).
    stalls
        How unpleasant the memory is (plusargs of ``sim/memory.v``).

    Returns
    -------
    list of str
        A line for each program of which they don't say the same: the kind of fault, and, but for
        scratchpad overflows, its instruction and address; or the bytes of the output.
    Counter of str
        Programs by what they came to: a kind of fault, "unchecked" (what is wrong and nothing looks
        for), "bytes", or "uncertain" (no fault, and bytes that depend on what nobody promises).
    """
    _, image, size, _ = whole_program(config)
    programs = list(pairs(count, seed, config))
    data = bytearray(LINE)
    places = []
    for block in (image, *(program for _, program in programs)):
        places.append(len(data))
        data += block + bytes(-len(block) % LINE)
    output = len(data)
    data += bytes(size * count)
    jobs = [Job(name, (place, len(program)), (places[0], len(image)),
                (output + size * number, size), LIMIT)
            for number, ((name, program), place) in enumerate(zip(programs, places[1:],
                                                                  strict=True))]
    names = {number: name for name, number in FAULTS.items()}
    wrong, seen = [], Counter[str]()
    outcomes = machine(config, brief).run(Case(bytes(data), jobs, stalls))
    for (name, program), outcome in zip(programs, outcomes, strict=True):
        wanted, kind = wanted_of(program, config), names[outcome.FAULT]
        fault = wanted.fault
        marks = [outcome.values[mark] for mark in ("pending", "late", "violation", "stray")]
        if outcome.interrupt != 1 or marks != [0] * 4:
            wrong.append(f"{name}: not quiet, {outcome.values}")
        elif fault and not fault.checked:
            seen["unchecked"] += 1
        elif fault is None:
            seen["bytes" if wanted.output is not None else "uncertain"] += 1
            if outcome.STATUS != DONE or wanted.output not in (None, outcome.output):
                wrong.append(f"{name}: {kind}, other bytes" if outcome.STATUS == DONE
                             else f"{name}: {kind}, not none")
        else:
            seen[fault.kind] += 1
            # The hardware reads ahead: of a pass beyond its bank it may have read the instructions
            # behind, and if one of these is wrong, may name it first.
            exact = fault.kind != "scratchpad overflow"
            # A LOAD, or a pass, whose data end too early has begun already, and if it would reach
            # beyond its bank, the hardware may say so first.
            if (fault.kind == "program without end" and kind == "scratchpad overflow"
                    and outcome.FAULT_INSTRUCTION == fault.instruction):
                continue
            if (outcome.STATUS != FAULT or (exact and kind != fault.kind)
                    or (exact and (outcome.FAULT_INSTRUCTION, outcome.FAULT_ADDRESS)
                        != (fault.instruction, fault.address))):
                wrong.append(f"{name}: {kind} of {outcome.FAULT_INSTRUCTION}, not {fault}")
    return wrong, seen
