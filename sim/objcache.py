# SPDX-License-Identifier: Apache-2.0
"""Compile Verilator's own library once, not once a model: 8 of the 10 seconds of a small build.

Verilator's makefile runs ``$(OBJCACHE) g++ ...``; `sim.toolchain` sets ``OBJCACHE`` to this script.
A source of Verilator's include folder does not depend on the model, so its object is kept under a
name made of everything that it depends on: the compiler, the arguments, and the time and size of
every file in that folder. A macro that none of those files names, as ``VM_TRACE_FST``, makes no
other object. Any other command runs unchanged.
"""

__all__ = ["main"]

import fcntl
import hashlib
import os
import re
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
    files = sorted(file for file in source.parent.rglob("*.*") if file.is_file())
    words = set[bytes]().union(*(re.findall(rb"VM_\w+", file.read_bytes()) for file in files
                                 if file.suffix in (".h", ".cpp", ".hpp", ".c")))
    used = [argument for argument in command
            if not (name := re.match(r"-D(VM_\w+)=", argument)) or name[1].encode() in words]
    parts = [_stat(compiler), *used, *map(_stat, files)]
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
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w", encoding="ascii") as lock:
        if not kept.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)   # another process may be at it
        if not kept.exists():
            code = subprocess.call(command)
            if code == 0:
                handle, name = tempfile.mkstemp(dir=kept.parent)
                os.close(handle)
                shutil.copyfile(output, name)
                Path(name).replace(kept)
            return code
    shutil.copyfile(kept, output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
