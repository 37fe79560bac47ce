# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.demo``: one digit, from memory to logits on the generated Verilog."""

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from examples.demo.options import command_line
from vitforge.base.cli import parse_first, replace_folder, run_command
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    # What comes next takes seconds.
    parse_first(command_line(), "golden", "sim", "synth", "report")

import jinja2
import torch
from rich.console import Console
from rich.table import Table

from examples.demo import pictures
from gen.compiler.timeline import draw
from gen.elaborate import generate
from gen.synthesis.netlist import synthesize
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.data.mnist_inputs import read_image
from golden.float import checkpoint
from golden.network.calibrate import calibrate
from hw.units import UNITS, words
from sim.accelerator.check import check
from sim.cases.image import image_cases
from sim.cases.trace import PATTERNS, trace
from sim.run import SimulationError, regress
from vitforge.spec.config import Config, load

#: Cycles of the systolic array that the page shows.
SHOWN = 160


def _recognise(image: torch.Tensor, config: Config, directory: Path) -> dict[str, Any]:
    """Classify the image in float and on the accelerator; what the page says of it."""
    model = checkpoint.load(WEIGHTS)
    sample = mnist.sample()
    integers = calibrate(model, sample.calibration.images, config)
    with progress_bar("simulate the accelerator, percent", 100) as update:
        run = check(integers, image, directory=directory, progress=update)
    codes, counters = run.logits, run.counters[0]
    products = integers.products / counters["cycles"]
    with torch.inference_mode():
        exact = model(mnist.pixels(image))
    known = [int(label) for shipped, label in zip(sample.test.images, sample.test.labels,
                                                  strict=True) if shipped.equal(image[0])]
    return {
        "counters": counters, "utilisation": products / config.rows / config.cols,
        "bytes": run.predicted.read_bytes + run.predicted.written_bytes,
        "speed": run.cycles / run.run_seconds,
        "engines": draw(run.predicted, run.compiled),
        "tokens": model.spec.tokens, "blocks": model.spec.depth,
        "float_class": int(exact.argmax()), "integer_class": int(codes.argmax()),
        "label": known[0] if known else "unknown",
        "digit": pictures.digit(image[0].numpy()),
        "logits": pictures.logits(exact[0].tolist(),
                                  (codes[0] * integers.logit_scale).tolist()),
    }


def _measure(config: Config, image: str, directory: Path) -> list[dict[str, Any]]:
    """Simulate and synthesise every unit; one row each."""
    rows = []
    for unit in UNITS:
        with progress_bar(f"simulate {unit}", len(PATTERNS)) as update:
            result = regress(unit, config, image=image, fast=True, directory=directory,
                             progress=update)
        with progress_bar(f"synthesise {unit}", 1) as update:
            area = synthesize(generate(unit, config), unit)
            update(1)
        rows.append({"unit": unit, "cases": result.cases, "cycles": result.cycles,
                     "words": result.words, "cycles_per_second": result.cycles_per_second,
                     **area.to_dict()})
    return rows


def _timeline(config: Config, image: str) -> str:
    case = next(case for case in image_cases("systolic", config, image)
                if case.name.endswith("attn.qkv"))
    return pictures.timeline(list(islice(trace(case, words("systolic", config), "flow", "flow"),
                                         SHOWN)))


def _table(rows: list[dict[str, Any]]) -> Table:
    # A mismatch would have ended the demo.
    table = Table("unit", title="generated Verilog against the golden model, on every cycle")
    for name in ("cycles", "words", "mismatches", "cycles/s", "LUT4", "carry", "FF", "DSP", "BRAM"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["unit"], f"{row['cycles']:,}", f"{row['words']:,}", "0",
                      f"{row['cycles_per_second']:,.0f}",
                      *(f"{row[name]:,}" for name in ("lut", "carry", "ff", "dsp", "bram")))
    return table


def _demo(args: argparse.Namespace) -> int:
    config, console = load(args.config), Console()
    console.width = max(console.width, 100)   # the table is never squeezed
    with replace_folder(args.output) as folder:
        try:
            page = _recognise(read_image(args.image), config, args.build)
            console.print(f"image {args.image}: the accelerator says [bold]"
                          f"{page['integer_class']}[/], the float network {page['float_class']}, "
                          f"the label is {page['label']}", soft_wrap=True)
            console.print(f"{page['counters']['cycles']:,} cycles from start to interrupt, as "
                          f"predicted; {page['utilisation']:.2%} of the array's products used",
                          soft_wrap=True)
            rows = _measure(config, args.image, args.build)
        except SimulationError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined) \
            .from_string((Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8"))
        (folder / "report.html").write_text(template.render(
            page, image=args.image, config=config.name, rows=rows, patterns=len(PATTERNS),
            shown=SHOWN, timeline=_timeline(config, args.image)), encoding="utf-8")
    console.print(_table(rows))
    console.print(f"page: {args.output / 'report.html'}", soft_wrap=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; exit code 2 with one line for bad input."""
    return run_command(_demo, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
