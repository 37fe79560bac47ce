# SPDX-License-Identifier: Apache-2.0
"""What a result depends on besides its inputs: the project's own code, and the tools' versions.

Code counts as it is parsed: a comment, a docstring or a line break computes nothing.
"""

__all__ = ["closure", "digest", "versions"]

import ast
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("explore", "gen", "golden", "hw", "sim", "vitforge")
#: Not code, but no less an input: imported by no statement.
DATA = {"golden.data.mnist": ("golden/data/mnist_sample.npz",),
        "golden.commands.options": ("golden/weights/mnist_vit.safetensors",),
        "gen.convert": ("sim/waivers.vlt",),
        "sim.accelerator.model": ("sim/memory.v", "sim/accelerator_top.v")}


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


class _Wordless(ast.NodeTransformer):
    """Removes docstrings, and whatever else is a string that nothing reads."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        constant = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if constant else node


def _imports(tree: ast.Module) -> Iterator[str]:
    """Names that may be modules: ``from a import b`` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _parsed(text: str) -> tuple[tuple[str, ...], bytes]:
    """Return what Python code may import, and a hash of it without its prose."""
    tree = ast.parse(text)
    names = tuple(_imports(tree))
    return names, hashlib.sha256(ast.dump(_Wordless().visit(tree)).encode()).digest()


def _meaning(path: Path) -> bytes:
    """Return what of a file can matter to a result."""
    if path.suffix != ".py":
        return path.read_bytes()
    return _parsed(path.read_text(encoding="utf-8"))[1]


def closure(*modules: str) -> set[Path]:
    """Return the project's files that modules import, directly or not, with their own."""
    found: set[Path] = set()
    waiting = list(modules)
    seen = set(waiting)
    while waiting:
        module = waiting.pop()
        path = _file(module) if module.split(".")[0] in PACKAGES else None
        if path is None:
            continue
        found |= {path, *(ROOT / name for name in DATA.get(module, ()))}
        new = set(_parsed(path.read_text(encoding="utf-8"))[0]) - seen
        seen |= new
        waiting += new
    return found


@functools.cache
def digest(*modules: str) -> str:
    """Hash the code that modules consist of; any changed statement in it changes the hash."""
    state = hashlib.sha256()
    for path in sorted(closure(*modules)):
        state.update(f"{path.relative_to(ROOT)}\0".encode() + _meaning(path) + b"\0")
    return state.hexdigest()[:16]


@functools.cache
def versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages; a missing one is an empty string."""
    def of(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""
    return {name: of(name) for name in packages}
