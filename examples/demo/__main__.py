# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.demo``: digits, from memory to logits on the generated Verilog."""

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

from examples.demo import blocks, clock, pictures
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
#: Digits in a row of the page, at most.
MOST = 20
#: MHz, for a configuration whose clock nobody measured.
ASSUMED = 100.0


def _images(args: argparse.Namespace) -> torch.Tensor:
    """Return the image that was asked for, and of shipped ones those after it, ``[N, H, W]``."""
    first = read_image(args.image)
    if not 1 <= args.count <= MOST:
        raise ValueError(f"count must be 1 to {MOST}, not {args.count}")
    if not args.image.isdecimal():
        return first
    return mnist.sample().test.images[int(args.image):int(args.image) + args.count]


def _labels(images: torch.Tensor) -> list[int | None]:
    """Return the labels of those images that are shipped."""
    test = mnist.sample().test
    known = [(test.images == image).flatten(1).all(1).nonzero().flatten().tolist()
             if image.shape == test.images.shape[1:] else [] for image in images]
    return [int(test.labels[found[0]]) if found else None for found in known]


def _recognise(images: torch.Tensor, config: Config, directory: Path) -> dict[str, Any]:
    """Classify the images in float and on the accelerator; what the page says of them."""
    model = checkpoint.load(WEIGHTS)
    integers = calibrate(model, mnist.sample().calibration.images, config)
    with progress_bar("simulate the accelerator, percent", 100) as update:
        run = check(integers, images, directory=directory, progress=update)
    counters = run.counters[0]
    with torch.inference_mode():
        exact = model(mnist.pixels(images))
    measured = clock.measured(config)
    mhz = measured or ASSUMED
    return {
        "counters": counters, "clock": mhz, "part": clock.PART if measured else None,
        "milliseconds": counters["cycles"] / mhz / 1000, "fps": mhz * 1e6 / counters["cycles"],
        "utilisation": integers.products / counters["cycles"] / config.rows / config.cols,
        "bytes": run.predicted.read_bytes + run.predicted.written_bytes,
        "speed": run.cycles / run.run_seconds,
        "engines": draw(run.predicted, run.compiled),
        "blocks": blocks.draw(blocks.shares(run.predicted, config)),
        "tokens": model.spec.tokens, "layers": model.spec.depth,
        "digits": [{"picture": pictures.digit(image.numpy()), "float": int(says.argmax()),
                    "integer": int(code.argmax()), "label": label}
                   for image, says, code, label in zip(images, exact, run.logits, _labels(images),
                                                       strict=True)],
        "logits": pictures.logits(exact[0].tolist(),
                                  (run.logits[0] * integers.logit_scale).tolist()),
    }


def _said(page: dict[str, Any], image: str) -> str:
    """Return the line about the digits."""
    digits = page["digits"]
    says, exact, labels = (" ".join("unknown" if item[name] is None else str(item[name])
                                    for item in digits) for name in ("integer", "float", "label"))
    which = f"image {image}" if len(digits) == 1 else \
        f"images {image} to {int(image) + len(digits) - 1}"
    verb = "label is" if len(digits) == 1 else "labels are"
    return (f"{which}: the accelerator says [bold]{says}[/], the float network {exact}, "
            f"the {verb} {labels}")


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
    config, console, images = load(args.config), Console(), _images(args)
    console.width = max(console.width, 100)   # the table is never squeezed
    with replace_folder(args.output) as folder:
        try:
            page = _recognise(images, config, args.build)
            console.print(_said(page, args.image), soft_wrap=True)
            console.print(f"{page['counters']['cycles']:,} cycles from start to interrupt, as "
                          f"predicted: {page['milliseconds']:.2f} ms, {page['fps']:,.0f} images a "
                          f"second at {page['clock']:g} MHz; {page['utilisation']:.2%} of the "
                          "array's products used", soft_wrap=True)
            rows = _measure(config, args.image, args.build)
        except SimulationError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined) \
            .from_string((Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8"))
        (folder / "report.html").write_text(template.render(
            page, config=config.name, rows=rows, patterns=len(PATTERNS),
            shown=SHOWN, timeline=_timeline(config, args.image)), encoding="utf-8")
    console.print(_table(rows))
    console.print(f"page: {args.output / 'report.html'}", soft_wrap=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; exit code 2 with one line for bad input."""
    return run_command(_demo, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
