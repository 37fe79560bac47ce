# SPDX-License-Identifier: Apache-2.0
"""Rows of `benchmarks.methods`: what one holds, and all of them as Markdown and CSV."""

__all__ = ["Row", "Setting", "comma", "table"]

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.intervals import wilson
from golden.ptq.widths import with_stream
from vitforge.base import markdown


@dataclass(frozen=True)
class Setting:
    """Widths ``WEIGHTS/ACTIVATIONS[/ATTENTION[/STREAM]]``; what is left out follows the method.

    Attention is as wide as activations, but for FQ-ViT, whose own is 4 bits. So is the residual
    stream, unless the method leaves it in floating point.
    """

    text: str

    def widths(self, method: str) -> dict[str, int]:
        """Return the settings of a method.

        Raises
        ------
        ValueError
            If the text is no such list of numbers.
        """
        try:
            numbers = [int(part) for part in self.text.split("/")]
        except ValueError:
            numbers = []
        if not 2 <= len(numbers) <= 4:
            raise ValueError("a setting must be WEIGHTS/ACTIVATIONS[/ATTENTION[/STREAM]], "
                             f"not {self.text!r}")
        found = dict(zip(("weights", "activations", "attention", "stream"), numbers, strict=False))
        return with_stream(method, found)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes
    ----------
    method, setting, variant
        What was measured; `variant` is other options of the method.
    images
        How many were classified.
    calibration
        Images that were observed, or with which blocks were reconstructed.
    float_right, simulated_right, integer_right
        Rightly classified by the three networks; None: not measured.
    alike
        Classified alike by the last two.
    simulated_loss, integer_loss
        Points less right than the float network, with the 95 % interval (`benchmarks.intervals`).
    gap
        Points that integers have less right than the simulation, with the same interval.
    observe_seconds, simulate_seconds, integer_seconds
        Processor time: of all calibration, and of an image by the two quantized networks.
    weight_bytes, datapath
        Of the integer network: `golden.deploy.widths.weight_bytes`, and which formats it has.
    refused
        Why a method has no formats at these widths, or the datapath none for them; empty if there
        are.
    """

    method: str
    setting: str
    variant: str
    images: int
    calibration: int
    float_right: int
    simulated_right: int | None = None
    integer_right: int | None = None
    alike: int | None = None
    simulated_loss: str = ""
    integer_loss: str = ""
    gap: str = ""
    observe_seconds: float = 0.0
    simulate_seconds: float = 0.0
    integer_seconds: float = 0.0
    weight_bytes: int = 0
    datapath: str = ""
    refused: str = ""

    @property
    def name(self) -> str:
        """Of the row's file."""
        text = f"{self.method} {self.setting} {self.variant}".strip()
        return "".join(c if c.isalnum() or c in "=.-" else "_" for c in text)


_COLUMNS = ("method", "widths", "options", "simulated", "integer", "simulated %", "integer %",
            "simulated loss", "integer loss", "integers behind", "alike", "calibration s",
            "simulation ms", "integers ms", "weight bytes", "datapath")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    def share(count: int | None, images: int) -> str:
        if count is None:
            return ""
        low, high = wilson(count, images)
        return f"{100 * count / images:.2f} ({100 * low:.1f} to {100 * high:.1f})"

    def cells(row: Row) -> tuple[object, ...]:
        return (row.method, row.setting, row.variant,
                "" if row.simulated_right is None else row.simulated_right,
                "" if row.integer_right is None else row.integer_right,
                share(row.simulated_right, row.images), share(row.integer_right, row.images),
                row.simulated_loss, row.integer_loss, row.gap,
                "" if row.alike is None else row.alike, f"{row.observe_seconds:.1f}",
                f"{row.simulate_seconds * 1e3:.0f}", f"{row.integer_seconds * 1e3:.0f}",
                f"{row.weight_bytes:,}" if row.weight_bytes else "",
                f"refused: {row.refused}" if row.refused else row.datapath)

    first = rows[0]
    return (f"{first.images} images, {first.float_right} right in float "
            f"({first.float_right / first.images:.2%}). In brackets are 95 % intervals; losses "
            "are points less right than the float network on the same images. Times are of the "
            "processor; those of networks are of an image.\n\n"
            + markdown.table(_COLUMNS, map(cells, rows)))


def comma(rows: Sequence[Row]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in dataclasses.fields(Row)],
                            lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return text.getvalue()
