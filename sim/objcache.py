# SPDX-License-Identifier: Apache-2.0
"""Compile Verilator's own library once, not once a model: 8 of the 10 seconds of a small build.

Verilator's makefile runs ``$(OBJCACHE) g++ ...``; `sim.toolchain` sets ``OBJCACHE`` to this script.
A source of Verilator's include folder does not depend on the model, so its object is kept under a
name made of everything that it depends on: the compiler, the arguments, and the time and size of
every file in that folder. Any other command runs unchanged.
"""

__all__ = ["main"]

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def _stat(path: Path) -> str:
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _key(command: list[str], source: Path) -> str:
    compiler = Path(shutil.which(command[0]) or command[0]).resolve()
    parts = [_stat(compiler), *command, *map(_stat, sorted(source.parent.glob("*.*")))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main(argv: list[str]) -> int:
    """Run ``FOLDER COMPILER ARGUMENT...`` and return the compiler's exit code.

    FOLDER is where the objects are kept. Several processes may run at once.
    """
    folder, *command = argv
    source = Path(command[-1])
    library = source.is_absolute() and (source.parent / "verilated_config.h").is_file()
    if not (library and "-c" in command and "-o" in command):
        return subprocess.call(command)
    at = command.index("-o") + 1
    output = Path(command[at])
    kept = Path(folder) / f"{_key(command[:at] + command[at + 1:], source)}.o"
    if not kept.exists():
        code = subprocess.call(command)
        if code == 0:
            kept.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=kept.parent)
            os.close(handle)
            shutil.copyfile(output, name)
            Path(name).replace(kept)
        return code
    shutil.copyfile(kept, output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
