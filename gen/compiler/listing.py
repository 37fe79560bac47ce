# SPDX-License-Identifier: Apache-2.0
"""A program as text: its banks, its layers, and every pass with its bytes."""

__all__ = ["listing"]

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from gen.compiler.compile import Compiled
from gen.compiler.memory import bank_words
from golden.machine.cycles import predict
from golden.machine.program import Instruction, pass_channels
from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import (
    DESTINATIONS,
    LATE_NEVER,
    MODES,
    OPERANDS,
    OPERATIONS,
    PACKS,
    STATISTICS,
)
from vitforge.spec.pass_fields import pass_doubled, pass_keeps, pass_pack, pass_paired
from vitforge.spec.sizes import columns, most_words, paired
from vitforge.spec.timing import LATENCY

_OPERANDS = {number: name for name, number in OPERANDS.items()}
_FORMATS = {number: name for name, number in FORMATS.items()}
_OPERATIONS = {number: name for name, number in OPERATIONS.items()}
_STATISTICS = {number: name for name, number in STATISTICS.items()}
_PACKS = {number: name for name, number in PACKS.items()}
_DESTINATIONS = {number: name for name, number in DESTINATIONS.items()}


def _table(rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Align columns: the first row is the head."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def macs(item: Instruction, config: Config) -> int:
    """Return the products of a pass, those with padding included."""
    return item.fields["tokens"] * item.fields["tiles"] * config.rows \
        * pass_channels(item.fields, config)


def _pass(number: int, layer: str, detail: str, offset: int, item: Instruction,
          compiled: Compiled) -> list[object]:
    fields = item.fields
    operand = _OPERANDS[fields["operand"]]
    if operand == "plain":
        operand = _FORMATS[fields["operand_format"]]
    source = "residual" if fields["from_residual"] else "scratch"
    weights = f"stationary {fields['w_base']}+{fields['w_stride']}" if fields["stationary"] \
        else f"{fields['weight_bits']} bits"
    if pass_paired(fields, compiled.config):
        weights = f"pairs of {weights}"
    if pass_doubled(fields, compiled.config):
        operand = f"pairs of {operand}"
    if pass_keeps(fields, compiled.config):
        operand += f", kept at {fields['offset']}"
    statistics = _STATISTICS[fields["statistics"]]
    if fields["statistics"]:
        statistics += " first" * fields["statistics_first"] + " last" * fields["statistics_last"]
    target = f"offset {fields['offset']}" if fields["operation"] == OPERATIONS["raw"] \
        else fields["d_base"]
    if pass_pack(fields, compiled.config):
        target = f"{target}, {_PACKS[fields['pack']]} packed"
    return [number, f"{offset:#x}", item.size(compiled.config), layer, detail,
            f"{fields['tokens']}x{fields['tiles'] * compiled.config.rows}", operand,
            f"{source} {fields['a_base']}+{fields['a_stride']}", weights,
            f"{_OPERATIONS[fields['operation']]} {_FORMATS[fields['format']]}",
            f"{_DESTINATIONS[fields['destination']]} {target}", statistics,
            "" if fields["late"] == LATE_NEVER else fields["late"]]


def _rate(items: Sequence[Instruction], config: Config) -> tuple[object, ...]:
    """Return a layer's mode and what the array multiplies in a cycle, where there is a choice."""
    if not paired(config):
        return ()
    modes = {name: code for name, code in MODES.items() if name in config.modes.split("+")}
    most = max(item.fields["mode"] for item in items)
    name = next(name for name, code in modes.items() if code == most)
    return name, config.rows * config.cols * Element.fields(name)


def _costs(compiled: Compiled) -> Iterator[str]:
    """Say of every layer whose multipliers could do more what is in the way, and what it costs."""
    more = Counter[tuple[str, str]]()
    for step in compiled.steps:
        more[step.layer, step.why] += step.more
    for (layer, why), cycles in more.items():
        if cycles:
            yield f"{layer}: {why}: {cycles:,} cycles more"


def listing(compiled: Compiled) -> str:
    """Return the text of ``listing.txt``."""
    config = compiled.config
    passes = [item for item in compiled.instructions if item.kind == "PASS"]
    fill = "yes" if compiled.style.fill else "no"
    out = [(f"program of {len(compiled.program):,} bytes for configuration {config.name} "
            f"({config.hash()}), {len(passes)} passes of {columns(config)} channels"
            + " or less" * (most_words(config) > 1)),
           f"heads ahead: {compiled.style.ahead}, scores ahead: {fill}", ""]
    out += _table([("bank", "words used", "words there", "bytes used", "bytes there"), *(
        (bank, words, bank_words(bank, config), words * config.rows,
         bank_words(bank, config) * config.rows) for bank, words in compiled.needed.items())])

    found = predict(compiled.program, config, record=True)
    out += ["", (f"{found.cycles:,} cycles with a memory of {LATENCY} cycles latency, the array "
                 f"busy in {found.array_busy:,}; {found.read_bytes + found.written_bytes:,} bytes "
                 "moved"), ""]
    rows: list[Sequence[object]] = [("layer", "passes", "tokens x K", "products", "bytes",
                                     "words of operands", "cycles")]
    ends = [last for engine, _, last, _ in found.spans if engine == "array"]
    pairs = zip(compiled.steps, passes, strict=True)
    layers: dict[str, list[Instruction]] = {}
    for layer, group in groupby(pairs, key=lambda pair: pair[0].layer):
        layers.setdefault(layer, []).extend(item for _, item in group)
    # A layer takes the time from the last operand before each of its passes to its last one.
    cycles = Counter[str]()
    for step, begin, end in zip(compiled.steps, [0, *ends], ends, strict=False):
        cycles[step.layer] += end - begin
    for layer, items in layers.items():
        first = items[0].fields
        rows.append((layer, len(items), f"{first['tokens']}x{first['tiles'] * config.rows}",
                     sum(macs(item, config) for item in items),
                     sum(item.size(config) for item in items),
                     sum(item.fields["tokens"] * item.fields["tiles"] for item in items),
                     cycles[layer], *_rate(items, config)))
    if paired(config):
        rows[0] = (*rows[0], "mode", "products a cycle")
    out += [*_table(rows), *_costs(compiled), ""]

    loads: list[Sequence[object]] = [("offset", "LOAD", "from", "bytes", "to", "piece", "loops")]
    rows = [("pass", "offset", "bytes", "layer", "part", "tokens x K", "operand", "from",
             "weights", "result", "to", "statistics", "late")]
    offset = number = 0
    for item in compiled.instructions:
        fields = item.fields
        if item.kind == "LOAD":
            loops = " ".join(f"{fields[f'count_{loop}']}:{fields[f'delta_{loop}']}"
                             for loop in range(6) if fields[f"count_{loop}"] > 1)
            source = "program" if fields["inline"] else "input"
            loads.append((f"{offset:#x}", "", f"{source} {fields['offset']:#x}", fields["bytes"],
                          f"{_DESTINATIONS[fields['destination']]} {fields['base']}",
                          1 << fields["piece"], loops))
        elif item.kind == "PASS":
            step = compiled.steps[number]
            rows.append(_pass(number, step.layer, step.detail, offset, item, compiled))
            number += 1
        offset += item.size(config)
    out += [*_table(loads), "", *_table(rows), "", f"END at {offset - 64:#x}"]
    return "\n".join(out) + "\n"
