# SPDX-License-Identifier: Apache-2.0
"""Accuracy over images a second, every method at every width, as one SVG."""

__all__ = ["picture"]

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from explore.table import front
from vitforge.base import svg

if TYPE_CHECKING:
    import pandas

#: Told apart by most who see colours otherwise (after Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f7f7f",
           "#6a3d9a", "#000000")
MARKERS = "osD^PXv*"
WANTED = ("method", "fps", "top1")
#: Square points of a marker where no area was measured, and of the smallest that was.
PLAIN, SMALLEST = 55.0, 30.0


def picture(table: "pandas.DataFrame", title: str) -> str | None:
    """Draw a table as SVG; None if no row has a method, a speed and an accuracy.

    A colour is a method, a shape a study. The area of a marker is that of the design, if it was
    measured. The line joins what no other design beats in both.
    """
    if not set(WANTED) <= set(table.columns):
        return None
    rows = table[(table["status"] == "ok") & (table["method"] != "")].dropna(subset=list(WANTED))
    if rows.empty:
        return None
    figure = Figure(figsize=(9, 5.4))
    axes = figure.add_subplot()
    colours = dict(zip(rows["method"].unique(), COLOURS * 2, strict=False))
    markers = dict(zip(rows["study"].unique(), MARKERS * 2, strict=False))
    area = rows["ecp5.luteq"] if "ecp5.luteq" in rows.columns else None
    sizes = PLAIN if area is None else (SMALLEST * area / area.min()).fillna(PLAIN)
    for (method, study), part in rows.groupby(["method", "study"], sort=False):
        axes.scatter(part["fps"], part["top1"], color=colours[method], marker=markers[study],
                     s=PLAIN if isinstance(sizes, float) else sizes[part.index],
                     alpha=0.85, edgecolors="white", linewidths=0.6)
    _front(axes, rows)
    axes.axhline(rows["float_top1"].max(), color="#59636e", linewidth=0.8, linestyle="--")
    axes.text(0.995, rows["float_top1"].max(), "float ", ha="right", va="bottom", fontsize=8,
              color="#59636e", transform=axes.get_yaxis_transform())
    axes.set(title=title, xlabel=_across(rows), xscale="log",
             ylabel=f"top-1 of {int(rows['images'].max()):,} images in integers, %")
    axes.xaxis.set_major_formatter(lambda value, at: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, at: f"{value:g}")
    axes.tick_params(which="both", labelsize=8)
    axes.margins(x=0.14)   # room for the names on the front
    axes.grid(which="both", color="#e6eaee", linewidth=0.6)
    axes.set_axisbelow(True)
    _legends(axes, colours, markers)
    return svg.text(figure)


def _front(axes: Axes, rows: "pandas.DataFrame") -> None:
    """Draw the line of what is best, and name its points."""
    best = rows[front(rows, {"fps": "max", "top1": "max"})].sort_values("fps")
    axes.plot(best["fps"], best["top1"], color="#59636e", linewidth=1, linestyle=":", zorder=0)
    for _, row in best.iterrows():
        axes.annotate(f"{row['method']} {row['study']}", (row["fps"], row["top1"]), fontsize=7,
                      xytext=(5, 5), textcoords="offset points")


def _across(rows: "pandas.DataFrame") -> str:
    clocks = sorted({f"{clock:g}" for clock in rows["clock_mhz"]})
    kinds = " or ".join(sorted(set(rows["clock_kind"])))
    return f"images a second of {rows['network'].iloc[0]} at {', '.join(clocks)} MHz ({kinds})"


def _legends(axes: Axes, colours: dict[str, str], markers: dict[str, str]) -> None:
    def entry(text: str, colour: str, marker: str) -> Line2D:
        return Line2D([], [], label=text, color=colour, marker=marker, linestyle="")
    first = axes.legend(handles=[entry(name, colour, "o") for name, colour in colours.items()],
                        loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
    axes.add_artist(first)
    axes.legend(handles=[entry(name, "#59636e", marker) for name, marker in markers.items()],
                loc="lower left", bbox_to_anchor=(1.01, 0), fontsize=8, frameon=False)
