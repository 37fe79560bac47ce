# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn as SVG text: in the reader's light or dark, with a word for the mouse."""

__all__ = ["COLOURS", "arrow", "bar", "legend", "picture", "write"]

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

#: Okabe and Ito's, which most who see colours otherwise tell apart, in light and dark; the last is
#: the ink. A picture says by words too what its colours say.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
#: Colours by which text is read on top of them as black; the others take white.
_BRIGHT = frozenset("#e69f00 #56b4e9 #f0e442 #cc79a7 #999999".split())
# Every rule begins with the class of the picture: a page that holds it has styles of its own.
_STYLE = """
.vf{--ink:#1f2933;--soft:#52606d;--line:#9aa5b1;--back:#ffffff;--panel:#f2f5f7;
font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}
@media (prefers-color-scheme:dark){
.vf{--ink:#e6edf3;--soft:#aab4be;--line:#57606a;--back:#0d1117;--panel:#1b222b}}
.vf .back{fill:var(--back)} .vf text{fill:var(--ink)} .vf text.soft{fill:var(--soft)}
.vf .bold{font-weight:600} .vf .tip{fill:var(--line)} .vf .rule{stroke:var(--line)}
.vf .box{fill:var(--panel);stroke:var(--line);stroke-width:1.5}
.vf .way{fill:none;stroke:var(--line);stroke-width:1.6} .vf .groove{fill:var(--line);opacity:.35}
.vf text.on-bright{fill:#000} .vf text.on-dark{fill:#fff} .vf .ink{fill:var(--ink)}
.vf .hot:hover{stroke:var(--ink);stroke-width:1.5}
""".replace("\n", " ").strip()


def picture(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """Return an SVG element, alone or to be put into a page; its background is its own.

    Parameters
    ----------
    width, height
        In pixels; text has 13 where nothing else is said.
    parts
        Elements, from the back to the front.
    title
        What the picture shows, for who can't see it.
    """
    return "\n".join([
        (f'<svg xmlns="http://www.w3.org/2000/svg" class="vf" viewBox="0 0 {width:g} {height:g}" '
         f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(title)}">'),
        f"<style>{_STYLE}</style>", f'<rect class="back" width="{width:g}" height="{height:g}"/>',
        *parts, "</svg>"]) + "\n"


def write(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start",
          size: float | None = None) -> str:
    """Return a line of text with its base line at y; `kind` are classes, as "soft" and "bold"."""
    return (f'<text x="{x:g}" y="{y:g}"' + (f' class="{kind}"' if kind else "")
            + (f' text-anchor="{anchor}"' if anchor != "start" else "")
            + (f' font-size="{size:g}"' if size else "") + f">{escape(words)}</text>")


def bar(x: float, y: float, width: float, height: float, colour: str, hover: str = "",
        words: str = "") -> str:
    """Return a bar that says `hover` under the mouse, and `words` on itself if they have room."""
    paint = 'class="ink hot"' if colour == "ink" else f'class="hot" fill="{colour}"'
    found = f'<rect x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}" {paint}>' \
        + (f"<title>{escape(hover)}</title></rect>" if hover else "</rect>")
    # A letter is at most 7.5 pixels wide.
    if words and 7.5 * len(words) + 6 < width:
        found += write(round(x + width / 2, 1), y + height / 2 + 4.5, words, anchor="middle",
                       kind="on-bright" if colour in _BRIGHT else "on-dark").replace(
                           "<text", '<text pointer-events="none"')
    return found


def arrow(points: Sequence[tuple[float, float]]) -> str:
    """Return a line along points, horizontal and vertical, with a tip at its end."""
    (x, y), (before_x, before_y) = points[-1], points[-2]
    dx, dy = ((x > before_x) - (x < before_x), (y > before_y) - (y < before_y))
    tip = f"M{x:g} {y:g}" + "".join(
        f"L{x - 9 * dx + side * 4 * dy:g} {y - 9 * dy + side * 4 * dx:g}" for side in (-1, 1))
    line = "M" + "L".join(f"{a:g} {b:g}" for a, b in [*points[:-1], (x - 6 * dx, y - 6 * dy)])
    return f'<path class="way" d="{line}"/><path class="tip" d="{tip}z"/>'


def legend(x: float, y: float, width: float, items: Iterable[tuple[str, str]]) -> list[str]:
    """Return names with their colours, in as many lines as they need."""
    found, left = [], x
    for name, colour in items:
        needed = 7.2 * len(name) + 40
        if left > x and left + needed > x + width:
            left, y = x, y + 22
        found += [bar(left, y - 11, 14, 14, colour), write(left + 20, y, name)]
        left += needed
    return found
