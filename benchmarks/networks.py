# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.networks``: whole networks on arrays of several sizes, by the exact model.

Parameters are random: a program's cycles don't depend on their values, but for the m of two-scale
GeLU codes, by which they do or don't fit pairs of weights. Utilisation is of one product a
multiplier and cycle; with pairs it may be up to twice that, with quads four times. A Swin gets the
smallest memories that hold it, and passes of `max_tokens` tokens. ``--every`` is another table, of
the networks that people have (`benchmarks.every`).
"""

__all__ = ["Setting", "configuration", "main"]

import argparse
import csv
import dataclasses
import itertools
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.options import networks as command_line
from vitforge.base.cli import parse_first, replace_folder, run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from rich.console import Console
from rich.table import Table

from benchmarks import scalesim
from gen.compiler.compile import compile_network
from gen.compiler.fit import fit, room
from gen.compiler.model import Reading, quantized
from gen.compiler.options import NAMES
from golden.float.swin import SwinSpec
from golden.machine.cycles import predict
from golden.network.topology import Spec
from vitforge.spec.config import Config, load
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.limits import check
from vitforge.spec.timing import LATENCY

#: By rows and columns of the array: elements a cycle behind it, and width of the memory bus.
SIZES = {(8, 8): (4, 64), (8, 16): (4, 64), (16, 16): (4, 128), (16, 32): (8, 128),
         (32, 32): (16, 256)}
SIDES = {f"{rows}x{cols}": (rows, cols) for rows, cols in SIZES}
#: Arrays of --every, and the line of a page behind which its table is.
ARRAYS = ("8x8", "16x16")
MARK = "<!-- Written by python -m benchmarks.networks --every -->"
DEITS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all networks and arrays of a table have in common.

    Attributes
    ----------
    modes, lanes
        Of the array, and behind it; no lanes are those of `SIZES`.
    weights, activations, probabilities, gelu
        Bits of all weights, of uniform codes, and of probabilities if these are uniform; codes of
        GeLU's result.
    multiplier
        Ports of a multiplier.
    latency
        Of the memory.
    """

    modes: str = "single"
    lanes: int | None = None
    weights: int = 8
    activations: int = CODE_BITS
    probabilities: int | None = None
    gelu: str = "two-scale"
    multiplier: str = "18x18"
    latency: int = LATENCY


def _suited(spec: Spec, config: Config) -> Config:
    """Give a Swin the rows and tables that it needs."""
    return room(spec, config) if isinstance(spec, SwinSpec) else config


_READING = Reading(suit=_suited)


def configuration(rows: int, cols: int, setting: Setting) -> Config:
    """Return `edge16` with another array, and a scratchpad of as many bytes."""
    base, (lanes, bus) = load("edge16"), SIZES[rows, cols]
    words = {name: getattr(base, name) * base.rows // rows
             for name in ("scratch_words", "residual_words", "stationary_words")}
    attention: dict[str, Any] = {}
    if setting.probabilities is not None:
        attention = {"attention": "uniform", "attention_bits": setting.probabilities}
    return dataclasses.replace(base, name=f"array{rows}x{cols}", rows=rows, cols=cols,
                               lanes=setting.lanes or lanes, modes=setting.modes, axi_bits=bus,
                               multiplier=setting.multiplier, **words, **attention)


def _measure(name: str, rows: int, cols: int, setting: Setting) -> dict[str, Any]:
    config = configuration(rows, cols, setting)
    network = quantized(name, config, seed=0, weight_bits=setting.weights, gelu=setting.gelu,
                        activation_bits=setting.activations, reading=_READING)
    if isinstance(network.spec, SwinSpec):
        network = dataclasses.replace(network, config=fit(network))
    config = network.config
    compiled = compile_network(network)
    found = predict(compiled.program, config, latency=setting.latency)
    yardstick = scalesim.cycles(network.spec, rows, cols)
    return {
        "network": name.removesuffix("_patch16_224").removesuffix("_patch4_window7_224"),
        "array": f"{rows}x{cols}",
        "modes": config.modes, "lanes": config.lanes, "weights": setting.weights,
        "activations": setting.activations, "attention": config.attention,
        "attention_bits": config.attention_bits, "multiplier": config.multiplier,
        "gelu": setting.gelu, "products": network.products, "cycles": found.cycles,
        "utilisation": network.products / found.cycles / rows / cols,
        "weight_wait": found.weight_wait, "norm_wait": found.norm_wait,
        "softmax_wait": found.softmax_wait, "drain_wait": found.drain_wait, "fill": found.fill,
        "bytes": found.read_bytes + found.written_bytes,
        "scalesim_best_dataflow": min(yardstick.values()),
        "scalesim_best_by_layer": scalesim.best(network.spec, rows, cols),
    }


def _table(rows: list[dict[str, Any]], clock: float) -> Table:
    table = Table(title=f"one image, images a second at {clock:g} MHz")
    for column in ("network", "array", "modes"):
        table.add_column(column)
    for column in ("cycles", "utilisation", "images/s", "MB moved", "SCALE-Sim", "by layer"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["network"], row["array"], row["modes"], f"{row['cycles']:,}",
                      f"{row['utilisation']:.2%}", f"{clock * 1e6 / row['cycles']:.2f}",
                      f"{row['bytes'] / 1e6:.2f}", f"{row['scalesim_best_dataflow']:,}",
                      f"{row['scalesim_best_by_layer']:,}")
    return table


def _every(args: argparse.Namespace) -> int:
    """Compile the networks that people have, or run them on the Verilog, and write the page."""
    from benchmarks import every, every_record, kept_rows

    names = args.networks or list(every.NETWORKS)
    for name in names:
        every.shape(name)
    command = shlex.join((   # without the places of files
        "python", "-m", "benchmarks.networks", "--every", *args.networks,
        *(("--arrays", *args.arrays) if args.arrays else ()),
        *(("--verilog", args.verilog) if args.verilog else ())))
    arrays = [SIDES[array] for array in args.arrays or ARRAYS]
    configs = [configuration(*array, Setting()) for array in arrays]
    if args.verilog:
        return _verilog(args, names, configs, command)
    rows: list[list[every.Row]] = []
    args.output.mkdir(parents=True, exist_ok=True)
    kept = args.output / "every.csv"
    before = kept_rows.read(every.Row, kept)
    with progress_bar("networks", len(names)) as update:
        for found in every.measured(names, configs, before):
            rows.append(found)
            kept_rows.write(every.Row, {
                (row.network, row.key): row for row in (*before, *itertools.chain(*rows))}.values(),
                kept)
            update(len(rows))
    text = every.page(rows, every_record.read(args.record), command)
    (args.output / "every.md").write_text(text, encoding="utf-8")
    if args.page:
        head, mark, _ = args.page.read_text(encoding="utf-8").partition(MARK)
        replace(args.page, lambda file: file.write_text(f"{head}{mark}\n{text}", encoding="utf-8"))
    print(f"table: {args.page or args.output / 'every.md'}")
    return 0


def _verilog(args: argparse.Namespace, names: list[str], configs: list[Config],
             command: str) -> int:
    """Run networks on the Verilog, and note them."""
    from benchmarks import every_record
    from benchmarks.every_verilog import ran
    from sim.run import SimulationError

    try:
        with progress_bar("networks on the Verilog", len(names) * len(configs)) as update:
            done = 0
            for config in configs:
                for run in ran(names, args.verilog, config, command, args.output):
                    every_record.write([run], args.record)
                    update(done := done + 1)
    except SimulationError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print(f"record: {args.record}")
    return 0


def _run(args: argparse.Namespace) -> int:
    for array in args.arrays or []:
        if array not in SIDES:
            raise ValueError(f"arrays must be of {', '.join(SIDES)}, not {array!r}")
    if args.verilog and not args.every:
        raise ValueError("--verilog goes with --every")
    if args.page and MARK not in args.page.read_text(encoding="utf-8"):
        raise ValueError(f"{args.page} has no line {MARK}")
    return _every(args) if args.every else _tabled(args)


def _tabled(args: argparse.Namespace) -> int:
    names = args.networks or list(DEITS)
    for name in names:
        if name not in NAMES:
            raise ValueError(f"the network must be one of {', '.join(NAMES)}, not {name!r}")
    if args.clock <= 0:
        raise ValueError(f"clock must be above 0, not {args.clock:g}")
    settings = [Setting(modes, args.lanes, args.weights, args.activations, args.probabilities,
                        args.gelu, args.multiplier, args.latency) for modes in args.modes]
    shapes = [(SIDES[array], setting) for array in args.arrays or SIDES for setting in settings]
    for shape, setting in shapes:
        check(configuration(*shape, setting))
    rows: list[dict[str, Any]] = []
    with replace_folder(args.output) as folder:
        with progress_bar("networks", len(names) * len(shapes)) as update:
            for name in names:
                for shape, setting in shapes:
                    rows.append(_measure(name, *shape, setting))
                    update(len(rows))
        with (folder / "networks.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    console = Console()
    console.width = max(console.width, 110)
    console.print(_table(rows, args.clock))
    console.print(f"table: {args.output / 'networks.csv'}", soft_wrap=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit code 2 with one line for bad input."""
    return run_command(_run, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
