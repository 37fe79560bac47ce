# SPDX-License-Identifier: Apache-2.0
"""From an integer network to the accelerator's program: order, places, synchronisation, bytes."""

__all__ = ["Compiled", "compile_network", "supported"]

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np

from gen.compiler.check import hazards, reach
from gen.compiler.image import Blocks, Patches, inline_load
from gen.compiler.memory import DoesNotFitError, allocate, lives
from gen.compiler.schedule import Style, schedule, styles
from gen.compiler.steps import Load, Region, Schedule, Step
from gen.compiler.swin_order import Order
from golden.float.swin import SwinSpec
from golden.machine.program import Instruction, assemble, output_bytes
from golden.network.integers import Network
from golden.network.topology import Spec
from golden.units.encoding import thresholds
from vitforge.spec.config import Config
from vitforge.spec.instruction import DESTINATIONS, TABLE
from vitforge.spec.limits import check, check_format, fits, same_gelu
from vitforge.spec.sizes import ENTRY


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program, and what it was made of.

    Attributes
    ----------
    program
        Its bytes.
    instructions
        The same, before they were packed: LOADs, the passes, and those that some wait for, END.
    steps
        What each pass does, in order.
    regions
        Tensors and their places in the banks.
    needed
        Words of every bank that are used.
    style
        How the passes are interleaved.
    input_bytes, output_bytes
        Sizes of the buffers.
    """

    spec: Spec
    config: Config
    program: bytes
    instructions: tuple[Instruction, ...]
    steps: tuple[Step, ...]
    regions: tuple[Region, ...]
    needed: dict[str, int]
    style: Style
    input_bytes: int
    output_bytes: int


def supported(spec: Spec, config: Config) -> None:
    """Refuse shapes and configurations that the accelerator doesn't do.

    Raises
    ------
    ValueError
        The message names the field.
    """
    check(config)
    same_gelu(config, spec.gelu)
    windows = isinstance(spec, SwinSpec)
    fits(config, max_tokens=spec.keys if windows else spec.tokens, max_keys=spec.keys,
         max_channels=-(-spec.widest // config.rows) * config.rows)
    order = Blocks if windows else Patches
    order(spec, config).load(0)   # refuses a patch that the LOAD of an image can't place
    if isinstance(spec, SwinSpec):
        fits(config, stream_tokens=spec.tokens, table_tokens=Order(spec, config).table_tokens())


def compile_network(network: Network) -> Compiled:
    """Compile a network for the configuration it was calibrated for.

    Raises
    ------
    ValueError
        If the accelerator of this configuration can't run it; the message says which field, or
        which bank and how many bytes, is in the way.
    """
    spec, config = network.spec, network.config
    supported(spec, config)
    for name, layer in network.requantizations.items():
        check_format(config, layer.encoding.kind, name, "or quantize it to uniform codes")
    refusal: ValueError | None = None
    for style in styles(network):
        plan = schedule(network, style)
        regions = lives(plan.steps, plan.loaded)
        try:
            needed = allocate(regions, config)
        except DoesNotFitError as error:
            refusal = error
            continue
        instructions = _instructions(network, plan)
        program = assemble(instructions, config)
        return Compiled(
            spec=spec, config=config, program=program, instructions=tuple(instructions),
            steps=plan.steps, regions=tuple(regions), needed=needed, style=style,
            input_bytes=plan.order.bytes,
            output_bytes=output_bytes(spec.classes, config))
    assert refusal is not None
    raise refusal


def _add_thresholds(passes: list[Instruction], plan: Schedule, config: Config) -> None:
    """Let every pass whose format needs other thresholds than are there bring them."""
    held: tuple[int, ...] | None = None
    for number, (step, item) in enumerate(zip(plan.steps, passes, strict=True)):
        if step.encoding.kind == "uniform":
            continue
        assert item.parameters is not None
        wanted = thresholds(step.encoding, int(item.parameters["encode_shift"][0]), config)
        if wanted != held:
            fields = dict(item.fields) | {"has_thresholds": 1}
            passes[number] = dataclasses.replace(item, fields=fields, thresholds=wanted)
        held = wanted


def _instructions(network: Network, plan: Schedule) -> list[Instruction]:
    config = network.config
    image = plan.order.load(plan.patches.base)
    image["destination"] = DESTINATIONS["scratch"]
    passes = [step.instruction() for step in plan.steps]
    table = _table(plan.indices, config)
    brought = [[_loaded(config, load) for load in step.loads] for step in plan.steps]
    for number, (late, pending) in enumerate(hazards([*table, *_woven(brought, passes)], config)):
        fields = dict(passes[number].fields) | {"late": late, "pending": pending}
        passes[number] = dataclasses.replace(passes[number], fields=fields)
    _add_thresholds(passes, plan, config)
    top = 1 << config.acc_bits - 1
    for step, item in zip(plan.steps, passes, strict=True):
        if (most := reach(item, config)) >= top:
            raise ValueError(f"acc_bits must be more than {config.acc_bits} for {step.layer}, "
                             f"whose sums may reach {most}")
    return [Instruction("LOAD", image), *map(partial(_loaded, config), plan.loads), *table,
            *_woven(brought, passes), Instruction("END", {})]


def _woven(brought: list[list[Instruction]], passes: list[Instruction]) -> list[Instruction]:
    """Return passes, each behind its LOADs."""
    return [item for loads, one in zip(brought, passes, strict=True) for item in (*loads, one)]


def _loaded(config: Config, load: Load) -> Instruction:
    """Return the LOAD of a region's words."""
    fields = inline_load(load.region.base + load.offset, len(load.words), config)
    return Instruction("LOAD", fields | {"destination": DESTINATIONS[load.region.bank]},
                       data=load.words.astype(np.uint8).tobytes())


def _table(indices: tuple[int, ...], config: Config) -> list[Instruction]:
    """Return the LOAD of a table of tokens, if there is one."""
    if not indices:
        return []
    fits(config, table_tokens=len(indices))
    several = config.rows * 8 // ENTRY
    index = np.zeros(-(-len(indices) // several) * several, "<u2")
    index[:len(indices)] = indices
    fields = inline_load(0, len(index) // several, config) | {"destination": TABLE}
    return [Instruction("LOAD", fields, data=index.tobytes())]
