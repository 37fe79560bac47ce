# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.house``: the picture of the house, drawn from the imports themselves.

Rooms stand on the rooms that they import, and have an arrow to each; inside a room its folders are
sorted in the same way. Nothing in it is written by hand, so a test can hold the picture in
`docs/images/house.svg` against the code.
"""

__all__ = ["MODULES", "ROOMS", "draw", "imports", "main", "room"]

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

from vitforge.base.cli import run_command

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "house.svg"
#: Every room, and the colour of its arrows.
ROOMS = {
    "vitforge.spec": "#6b7280", "vitforge.base": "#9ca3af", "hw": "#b45309", "golden": "#a16207",
    "gen": "#15803d", "sim": "#0e7490", "formal": "#7c3aed", "explore": "#4338ca",
    "benchmarks": "#a21caf", "examples": "#be123c", "vitforge": "#111827",
}


def _modules() -> dict[str, Path]:
    found = {}
    for top in sorted({name.split(".")[0] for name in ROOMS}):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


#: The project's modules, without its tests, and their files.
MODULES = _modules()


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """Return what a module imports, and whether inside a function; not what types alone need."""
    found = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend((name, inside) for name in _names(node))
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), False)
    return tuple(found)


def _names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (item.name for item in node.names)
    elif node.module:
        for item in node.names:
            inner = f"{node.module}.{item.name}"
            yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    """Return the room that a module of the project is in."""
    two = ".".join(module.split(".")[:2])
    return two if two in ROOMS else module.split(".")[0]


def _folder(module: str) -> str:
    """Return the folder inside the room, or "" for a module at the room's door."""
    parts = module.removeprefix(room(module)).lstrip(".").split(".")
    path = MODULES[module]
    deep = len(parts) > 1 or (path.name == "__init__.py" and parts[0])
    return parts[0] if deep else ""


def _graph(names: Iterable[str], place: Mapping[str, str]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {place[name]: set() for name in names if place[name]}
    for name in names:
        for other, _ in imports(name):
            if place[name] and place.get(other) and place[other] != place[name]:
                graph[place[name]].add(place[other])
    return graph


def _floors(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sort into floors from the ground up: each stands on what it imports."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[other] for other in graph[name]), default=-1)
    floors: list[list[str]] = [[] for _ in range(max(height.values(), default=-1) + 1)]
    for name, floor in height.items():
        floors[floor].append(name)
    return [sorted(floor) for floor in floors]


def _text(x: float, y: float, words: str, size: int = 12, weight: str = "normal",
          fill: str = "#111827") -> str:
    return (f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
            f'fill="{fill}">{escape(words)}</text>')


def _purpose(name: str) -> str:
    """Return the line in which the room's `__init__` says what it is."""
    path = MODULES.get(name)
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    return (words or "").partition("\n")[0]


_WIDTH, _LEFT, _LANE, _CHIP, _GAP = 760, 20, 11, 24, 26


def _band(name: str, top: float) -> tuple[list[str], float]:
    """Draw one room from `top` down; return its lines and its height."""
    members = [module for module in MODULES if room(module) == name]
    folders = _floors(_graph(members, {module: _folder(module) for module in members}))
    height = 34 + (_CHIP + 6) * len(folders) + (6 if folders else 0)
    lines = [(f'<rect x="{_LEFT}" y="{top:g}" width="{_WIDTH}" height="{height}" rx="6" '
             f'fill="#f9fafb" stroke="{ROOMS[name]}" stroke-width="1.5"/>'),
             _text(_LEFT + 12, top + 22, f"{name.replace('.', '/')}/", 15, "bold", ROOMS[name]),
             _text(_LEFT + 150, top + 22, _purpose(name), 12, fill="#4b5563")]
    for number, floor in enumerate(reversed(folders)):
        x, y = _LEFT + 150, top + 34 + number * (_CHIP + 6)
        for folder in floor:
            width = 18 + 7.8 * len(folder)
            lines += [(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_CHIP}" rx="4" '
                      'fill="#ffffff" stroke="#9ca3af"/>'), _text(x + 8, y + 16, folder)]
            x += width + 8
    return lines, height


def draw() -> str:
    """Return the picture as SVG text; equal imports give equal bytes."""
    graph = _graph(list(MODULES), {module: room(module) for module in MODULES})
    graph.pop("vitforge", None)        # the one command starts everything, by name
    graph = {name: others - {"vitforge"} for name, others in graph.items()}
    order = [name for floor in reversed(_floors(graph)) for name in floor]
    lines, middle, top = [], {}, 20.0
    for name in order:
        more, height = _band(name, top)
        lines += more
        middle[name] = (top, height)
        top += height + _GAP
    right, lane = _LEFT + _WIDTH, 0
    for name in order:
        others = sorted(graph[name], key=order.index)
        for number, other in enumerate(others):
            lane += 1
            x = right + 14 + _LANE * lane
            y = middle[name][0] + 8 + number * 5
            arrived = sum(other in graph[above] for above in order[:order.index(name)])
            end = middle[other][0] + middle[other][1] - 6 - arrived * 5
            lines.append(f'<path d="M{right:g} {y:g}H{x:g}V{end:g}H{right + 2:g}" fill="none" '
                         f'stroke="{ROOMS[name]}" marker-end="url(#{name})"/>')
    width = right + 40 + _LANE * lane
    return "\n".join([
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" '
        'font-family="DejaVu Sans, Verdana, sans-serif">'),
        "<defs>", *(f'<marker id="{name}" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" '
                    'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" '
                    f'fill="{colour}"/></marker>' for name, colour in ROOMS.items()), "</defs>",
        f'<rect width="{width:g}" height="{top:g}" fill="#ffffff"/>', *lines, "</svg>"]) + "\n"


def _write(args: argparse.Namespace) -> int:
    args.output.write_text(draw(), encoding="utf-8")
    print(f"the house: {args.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.house", description=__doc__,
        epilog="example: python -m benchmarks.house",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=PICTURE, metavar="FILE",
                        help="SVG file to write (default: docs/images/house.svg)")
    return run_command(_write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
