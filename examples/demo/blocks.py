# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.demo.blocks``: the accelerator's blocks, as the pages show them.

The demo draws the same picture with the share of a run in which each engine was busy.
"""

__all__ = ["ENGINES", "PICTURE", "draw", "main", "shares"]

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gen.compiler.timeline import busy
from golden.machine.cycles import Prediction
from vitforge.base.cli import run_command
from vitforge.base.vector import COLOURS, arrow, picture, write
from vitforge.spec.config import Config

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "accelerator.svg"
#: Left, top, width, height, and what a block does.
_BLOCKS = {
    "registers": (16, 16, 152, 78, ("AXI4-Lite, interrupt",)),
    "bus master": (16, 166, 152, 150, ("AXI4, 64 to 512 bits", "program ahead", "logits back")),
    "unpacker": (212, 166, 136, 76, ("2 to 8-bit weights",)),
    "placer": (212, 276, 136, 76, ("scatters the image",)),
    "sequencer": (398, 150, 146, 92, ("LOAD, PASS, END", "parameters, faults")),
    "weight source": (616, 150, 148, 76, ("stream, or K and V",)),
    "operand path": (616, 270, 148, 92, ("decode, LayerNorm,", "softmax; rows lanes")),
    "systolic array": (836, 150, 148, 96, ("rows x cols", "next weights load")),
    "accumulators": (836, 318, 148, 66, ("two banks",)),
    "scratchpad": (212, 404, 332, 76, ("three banks: scratch, residual stream, K and V",)),
    "drain": (630, 426, 354, 92, ("bias, requantize, GeLU, residual, a few lanes;",
                                  "statistics of LayerNorm and softmax")),
}
#: Lines with arrows, and a word where there is one: its place, its text.
_ARROWS = (
    (((168, 50), (471, 50), (471, 150)), (186, 42, "start, stop, status, fault, counters")),
    (((168, 204), (212, 204)), None),
    (((348, 204), (398, 204)), None),
    (((168, 304), (212, 304)), None),
    (((280, 352), (280, 404)), None),
    (((544, 180), (616, 180)), (553, 172, "weights")),
    (((544, 424), (572, 424), (572, 206), (616, 206)), (566, 340, "K, V")),
    (((544, 450), (592, 450), (592, 318), (616, 318)), (598, 412, "codes")),
    (((764, 188), (836, 188)), None),
    (((764, 316), (800, 316), (800, 222), (836, 222)), (794, 262, "operands")),
    (((910, 246), (910, 318)), None),
    (((910, 384), (910, 426)), None),
    (((690, 426), (690, 362)), (698, 412, "factors of a row")),
    (((630, 468), (544, 468)), None),
    (((630, 504), (92, 504), (92, 316)), (104, 496, "logits")),
)
#: Words that end at their place.
_BEFORE = frozenset({"K, V", "operands"})
#: Blocks whose work a run measures: what their share counts.
ENGINES = {
    "bus master": "cycles in which a beat moves", "placer": "cycles of LOADs",
    "weight source": "cycles in which weights, keys or values go to the array",
    "operand path": "cycles in which a word of operands leaves it",
    "systolic array": "cycles in which a word of operands enters it",
    "drain": "cycles in which it has sums to read, or results to write",
}


def shares(found: Prediction, config: Config) -> dict[str, float]:
    """Return which part of a run each of `ENGINES` works, 0 to 1.

    Parameters
    ----------
    found
        With its spans.
    """
    beats = (found.read_bytes + found.written_bytes) * 8 / config.axi_bits
    counts = {"bus master": beats, "placer": busy(found, "load"),
              "weight source": busy(found, "weights", "keys"), "operand path": found.array_busy,
              "systolic array": found.array_busy, "drain": busy(found, "drain")}
    return {name: count / found.cycles for name, count in counts.items()}


def _block(name: str, share: float | None) -> list[str]:
    left, top, width, height, lines = _BLOCKS[name]
    middle = left + width / 2
    whole = 20 + 17 * len(lines) + (20 if share is not None else 0)
    y = top + (height - whole) / 2 + 14
    parts = [f'<rect class="box" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>',
             write(middle, y, name, kind="bold", anchor="middle", size=15)]
    parts += [write(middle, y + 18 + 16 * number, line, kind="soft", anchor="middle", size=12)
              for number, line in enumerate(lines)]
    if share is not None:
        y += 16 * len(lines) + 12
        length = width - 24 - 52
        place = f'x="{left + 12}" y="{y:g}" height="9" rx="2"'
        parts += [f'<rect class="groove" {place} width="{length}">',
                  f"<title>{name}: {share:.2%}, {ENGINES[name]}</title></rect>",
                  f'<rect {place} width="{max(1.0, share * length):.1f}" fill="{COLOURS[2]}"/>',
                  write(left + width - 12, y + 9, f"{share:.1%}", kind="bold", anchor="end")]
    return parts


def draw(found: Mapping[str, float] | None = None) -> str:
    """Draw the blocks as SVG text, with `shares` where there are some."""
    parts = [arrow(points) for points, _ in _ARROWS]
    parts += [write(x, y, words, kind="soft", size=12,
                    anchor="end" if words in _BEFORE else "start")
              for _, word in _ARROWS if word for x, y, words in [word]]
    parts += [part for name in _BLOCKS for part in _block(name, (found or {}).get(name))]
    return picture(1000, 532, parts, "The accelerator's blocks: " + ", ".join(_BLOCKS))


def _write(args: argparse.Namespace) -> int:
    args.output.write_text(draw(), encoding="utf-8")
    print(f"the blocks: {args.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture of the pages."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo.blocks", description="Draw the accelerator's blocks.",
        epilog="example: python -m examples.demo.blocks")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE, metavar="FILE",
                        help="SVG file to write (default: docs/images/accelerator.svg)")
    return run_command(_write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
