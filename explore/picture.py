# SPDX-License-Identifier: Apache-2.0
"""Accuracy over images a second, a line a method and a column a width, as one SVG."""

__all__ = ["picture"]

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from vitforge.base import vector
from vitforge.base.vector import write

if TYPE_CHECKING:
    import pandas

WANTED = ("method", "fps", "top1", "float_top1", "images")
#: Okabe and Ito's but for yellow, and three more; "ink" is the text's, dark or light.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "ink", "#8c6bb1",
           "#999999", "#a6761d")
#: Markers in a square of -1 to 1.
SHAPES = (
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0z",
    "M-.9 -.9H.9V.9H-.9z",
    "M0 -1.25L1.25 0 0 1.25 -1.25 0z",
    "M0 -1.2L1.15 .9H-1.15z",
    "M0 1.2L1.15 -.9H-1.15z",
    "M-.4 -1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4z",
    "M-1.2 0L-.6 -1.05H.6L1.2 0 .6 1.05H-.6z",
)
#: Pixels: the picture, the plot in it, and the strip below for what has lost too much to be drawn.
WIDTH, HEIGHT = 880, 540
LEFT, RIGHT, TOP, BOTTOM, STRIP = 58, 650, 128, 432, 462
#: Radius of a marker where no area was measured, and of the smallest that was.
PLAIN = 6.0
#: Points below the float network from which on a design is in the strip.
LOST = 24
#: Products that a multiplier makes at once, by the modes of the array.
PRODUCTS = {"single": "one product a multiplier", "single+pair": "two products a multiplier",
            "single+pair+quad": "four products a multiplier"}


@dataclass(frozen=True)
class _Frame:
    """Where numbers are in the picture: images a second, by their logarithm, and top-1."""

    slow: float
    fast: float
    low: float
    high: float

    @classmethod
    def of(cls, rows: "pandas.DataFrame") -> "_Frame":
        """Choose the ends of the axes."""
        ends = math.log(rows["fps"].min()), math.log(rows["fps"].max())
        margin = max(0.12 * (ends[1] - ends[0]), 0.05)
        most = max(rows["float_top1"].max(), rows["top1"].max())
        drawn = rows["top1"][rows["top1"] > rows["float_top1"] - LOST]
        least = min(drawn.min() if len(drawn) else most, most - 4)
        step = 0.08 * (most - least)
        return cls(ends[0] - margin, ends[1] + margin, least - step, min(most + step, 100.6))

    def x(self, fps: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log(fps) - self.slow) / (self.fast - self.slow)

    def y(self, top1: float) -> float:
        if top1 < self.low:
            return STRIP
        return BOTTOM - (BOTTOM - TOP) * (top1 - self.low) / (self.high - self.low)


def picture(table: "pandas.DataFrame", title: str) -> str | None:
    """Draw a table as SVG; None if no row has a method, a speed and an accuracy.

    A line with its marker is a method, a column a study. The area of a marker is that of the
    design, if it was measured. Names stand at the ends of the lines.
    """
    if not set(WANTED) <= set(table.columns):
        return None
    rows = table[(table["status"] == "ok") & (table["method"] != "")].dropna(subset=list(WANTED))
    if rows.empty:
        return None
    rows = rows.assign(name=[_name(row) for _, row in rows.iterrows()], radius=_radii(rows))
    frame, best = _Frame.of(rows), rows["float_top1"].max()
    parts = [write(LEFT - 44, 26, title, kind="bold", size=17),
             write(LEFT - 44, 47, f"top-1 of {int(rows['images'].max()):,} images, in the integers "
                   f"of the machine, over images a second: {_clock(rows)}", kind="soft")]
    parts += [*_columns(frame, rows), *_axes(frame, rows)]
    fastest = rows.loc[rows["fps"].idxmax(), "study"]
    lines, markers = [], []
    ends = [_End("float", best, f"{best:.1f} %", RIGHT, frame.y(best), "", "")]
    for at, (name, part) in enumerate(rows.groupby("name", sort=False)):
        line = part.sort_values("fps", kind="stable")
        colour, shape = COLOURS[at % len(COLOURS)], SHAPES[at % len(SHAPES)]
        lines.append(_line(frame, line, colour))
        markers += [_marker(frame, row, colour, shape) for _, row in line.iterrows()]
        last = line.iloc[-1]
        value = "" if last["study"] == fastest else f"{last['study']}: "
        ends.append(_End(str(name), last["top1"], f"{value}{last['top1']:.1f} %",
                         frame.x(last["fps"]) + last["radius"], frame.y(last["top1"]), colour,
                         shape))
    parts += [*lines, *markers, *_names(ends, str(fastest))]
    return vector.picture(WIDTH, HEIGHT, parts, f"{title}: top-1 over images a second")


def _name(row: "pandas.Series") -> str:
    return row["method"] + (", formats" if row.get("reconstruct") == "no" else "")


def _radii(rows: "pandas.DataFrame") -> "pandas.Series | float":
    if "ecp5.luteq" not in rows.columns:
        return PLAIN
    area = rows["ecp5.luteq"]
    return (PLAIN * (area / area.min()) ** 0.5).fillna(PLAIN)


def _clock(rows: "pandas.DataFrame") -> str:
    clocks = sorted(set(rows["clock_mhz"]))
    kinds = " or ".join(sorted(set(rows["clock_kind"])))
    many = f"{clocks[0]:g} to {clocks[-1]:g}" if len(clocks) > 1 else f"{clocks[0]:g}"
    return f"{rows['network'].iloc[0]} at {many} MHz ({kinds})"


def _paint(colour: str, what: str) -> str:
    return f'{what}="var(--ink)"' if colour == "ink" else f'{what}="{colour}"'


def _range(values: Iterable[float], digits: str) -> str:
    """Say a number, or the ends of a range that are told apart."""
    texts = [format(value, digits) for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _columns(frame: _Frame, rows: "pandas.DataFrame") -> list[str]:
    """Mark each study's speeds by a band, and say above it what its machines are."""
    found, taken = [], 0.0
    studies = sorted(rows.groupby("study", sort=False), key=lambda item: item[1]["fps"].min())
    for name, part in studies:
        first, last = frame.x(part["fps"].min()) - 16, frame.x(part["fps"].max()) + 16
        found.append(f'<rect fill="var(--panel)" x="{first:.1f}" y="{TOP}" rx="6" '
                     f'width="{last - first:.1f}" height="{STRIP + 14 - TOP}"/>')
        words = [f"{_range(part['fps'], '.1f' if part['fps'].max() < 100 else ',.0f')} images/s"]
        modes = set(part["config.modes"]) if "config.modes" in part.columns else set()
        if len(modes) == 1:
            words.insert(0, PRODUCTS.get(modes.pop(), ""))
        if "ecp5.luteq" in part.columns and part["ecp5.luteq"].notna().any():
            area = part.dropna(subset=["ecp5.luteq"])
            words.append(f"{_range(area['ecp5.luteq'], ',.0f')} LUTeq, "
                         f"{_range(area['ecp5.dsp'], '.0f')} multipliers")
        # Centred, if the one before leaves room.
        half = 3.3 * max(map(len, words)) + 6
        middle = min(max((first + last) / 2, taken + half), WIDTH - half)
        taken, top = middle + half, TOP - 6 - 15 * len(words)
        found.append(write(round(middle, 1), top, str(name), kind="bold", anchor="middle", size=15))
        found += [write(round(middle, 1), top + 15 * (at + 1), text, kind="soft", anchor="middle",
                        size=12) for at, text in enumerate(words)]
    return found


def _steps(low: float, high: float, most: int) -> list[float]:
    """Return round numbers in a range, at most so many."""
    step = next(size for power in range(-2, 3) for size in (10.0 ** power, 2 * 10.0 ** power,
                                                            5 * 10.0 ** power)
                if (high - low) / size <= most)
    return [step * at for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(frame: _Frame, rows: "pandas.DataFrame") -> list[str]:
    """Draw both axes with their numbers, the float network, the strip and an interval."""
    found = []
    for value in _steps(frame.low, min(frame.high, 100), 7):
        y = round(frame.y(value), 1)
        found += [f'<path class="rule" opacity=".35" d="M{LEFT} {y}H{RIGHT}"/>',
                  write(LEFT - 8, y + 4, f"{value:g} %", kind="soft", anchor="end", size=12)]
    found.append(f'<path class="rule" d="M{LEFT} {STRIP + 14}H{RIGHT}"/>')
    ends = math.exp(frame.slow), math.exp(frame.fast)
    for value in _numbers(*ends):
        x = round(frame.x(value), 1)
        found += [f'<path class="rule" d="M{x} {STRIP + 14}v5"/>',
                  write(x, STRIP + 34, f"{value:g}", kind="soft", anchor="middle", size=12)]
    found.append(write((LEFT + RIGHT) / 2, STRIP + 56, "images a second", kind="soft",
                       anchor="middle"))
    best = rows["float_top1"].max()
    y = round(frame.y(best), 1)
    found.append(f'<path class="rule" stroke-dasharray="5 4" d="M{LEFT} {y}H{RIGHT}"/>')
    if (rows["top1"] < frame.low).any():
        torn = f"M{LEFT} {BOTTOM + 13}l8 -5 8 10 8 -5H{RIGHT}"
        found += [f'<path class="rule" d="{torn}" fill="none" opacity=".6"/>',
                  write(LEFT - 8, STRIP + 4, "less", kind="soft", anchor="end", size=12)]
    return found + _interval(frame, best / 100, int(rows["images"].max()))


def _numbers(low: float, high: float) -> Sequence[float]:
    """Return the numbers of a logarithmic axis."""
    found = [size * 10.0 ** power for power in range(-3, 7) for size in (1, 1.5, 2, 3, 4, 5, 7)]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) > 1 else _steps(low, high, 5)


def _interval(frame: _Frame, share: float, images: int) -> list[str]:
    """Draw how far a share of so many images may be from all images', 19 times of 20."""
    half = 196 * math.sqrt(share * (1 - share) / images)
    pixels = (BOTTOM - TOP) * half / (frame.high - frame.low)
    if pixels < 4:
        return []
    x, y = LEFT + 14, BOTTOM - 10 - pixels
    return [f'<path class="way" d="M{x - 5} {y - pixels:.1f}h10m-5 0V{y + pixels:.1f}m-5 0h10"/>',
            write(x + 12, BOTTOM - 26, "95 % interval", kind="soft", size=12),
            write(x + 12, BOTTOM - 11, f"of a share: ±{half:.1f}", kind="soft", size=12)]


def _line(frame: _Frame, rows: "pandas.DataFrame", colour: str) -> str:
    points = "L".join(f"{frame.x(row['fps']):.1f} {frame.y(row['top1']):.1f}"
                      for _, row in rows.iterrows())
    return (f'<path d="M{points}" fill="none" {_paint(colour, "stroke")} stroke-width="2.2" '
            'stroke-linejoin="round" opacity=".85"/>')


def _shape(x: float, y: float, radius: float, colour: str, shape: str, hover: str = "") -> str:
    return (f'<path transform="translate({x:.1f} {y:.1f}) scale({radius:.2f})" d="{shape}" '
            f'{_paint(colour, "fill")} stroke="var(--back)" stroke-width=".2" class="hot">'
            + (f"<title>{escape(hover)}</title>" if hover else "") + "</path>")


def _marker(frame: _Frame, row: "pandas.Series", colour: str, shape: str) -> str:
    hover = f"{row['name']} {row['study']}: {row['top1']:.2f} %, {row['fps']:.2f} images/s"
    if row.get("ecp5.luteq", 0) > 0:
        hover += f", {row['ecp5.luteq']:,.0f} LUT equivalents"
    return _shape(frame.x(row["fps"]), frame.y(row["top1"]), row["radius"], colour, shape, hover)


@dataclass(frozen=True)
class _End:
    """The end of a line, and what is said of it; without a colour, of the float network."""

    name: str
    top1: float
    value: str
    x: float
    y: float
    colour: str
    shape: str


def _names(ends: Sequence[_End], study: str) -> list[str]:
    """Name every line beside its end, each name below the one before; its accuracy at `study`."""
    apart = 21
    tops: list[float] = []
    ends = sorted(ends, key=lambda end: (end.y, -end.top1))
    for end in ends:
        tops.append(max(end.y, tops[-1] + apart if tops else TOP))
    for back, at in enumerate(reversed(range(len(tops)))):
        tops[at] = min(tops[at], STRIP - apart * back)
    found = [write(WIDTH - 8, round(tops[0] - 14, 1), study, kind="soft", anchor="end", size=12)]
    for end, top in zip(ends, tops, strict=True):
        name, colour = RIGHT + 33, end.colour or "ink"
        found.append(f'<path d="M{end.x:.1f} {end.y:.1f}L{RIGHT + 6} {top:.1f}h6" fill="none" '
                     f'{_paint(colour, "stroke")} opacity=".45"'
                     + ("/>" if end.colour else ' stroke-dasharray="5 4"/>'))
        if end.colour:
            found.append(_shape(RIGHT + 20, top, PLAIN, colour, end.shape))
        found += [write(name, round(top + 4.5, 1), end.name, kind="bold" if end.colour else "soft"),
                  write(WIDTH - 8, round(top + 4.5, 1), end.value, anchor="end",
                        kind="" if end.colour else "soft")]
    return found
