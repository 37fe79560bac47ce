# SPDX-License-Identifier: Apache-2.0
"""Compile Verilator's own library once, not once a model: 8 of the 10 seconds of a small build.

Verilator's makefile runs ``$(OBJCACHE) g++ ...``; `sim.toolchain` sets ``OBJCACHE`` to this script.
A source of Verilator's include folder does not depend on the model, so its object is kept under a
name made of everything that it depends on: the compiler, the arguments, and the time and size of
every file in that folder. A macro that none of those files names, as ``VM_TRACE_FST``, makes no
other object. A model's own source that is compiled without optimisation takes Verilator's headers
from a precompiled one, kept in the same way. Any other command runs unchanged.
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

#: What models and cocotb's main program begin with.
HEADERS = ("verilated.h", "verilated_vpi.h")


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


def _once(kept: Path, command: list[str]) -> int:
    """Run a compiler, whose output is the file `kept`, unless that is there already.

    What follows ``-o`` in the command doesn't count.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    if kept.exists():
        return 0
    with kept.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)   # another process may be at it
        if kept.exists():
            return 0
        handle, name = tempfile.mkstemp(dir=kept.parent)
        os.close(handle)
        at = command.index("-o") + 1
        code = subprocess.call([*command[:at], name, *command[at + 1:]])
        Path(name).replace(kept) if code == 0 else Path(name).unlink()
        return code


def _with_headers(folder: Path, command: list[str]) -> list[str]:
    """Have a model's source begin with Verilator's headers, compiled before.

    Without optimisation they are a third of the time of a small model. The compiler takes them only
    for the same arguments, and reads them as text if anything else keeps it from that.
    """
    places = [Path(argument[2:]) for argument in command if argument.startswith("-I/")]
    include = next((place for place in places if (place / "verilated_vpi.h").is_file()), None)
    if include is None or not {"-c", "-o"} <= {*command} or "-include" in command:
        return command
    at = command.index("-o")
    flags = [argument for argument in (*command[:at], *command[at + 2:-1])
             if argument not in ("-c", "-MMD")]
    header = folder / f"{_key(flags, include / 'verilated_vpi.h')}.h"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"#include <{name}>\n" for name in HEADERS)
    if not header.exists():
        header.write_text(text, encoding="ascii")
    compile_it = [*flags, "-x", "c++-header", "-o", "", str(header)]
    if _once(header.with_suffix(".h.gch"), compile_it):
        return command
    return [command[0], "-include", str(header), *command[1:]]


def main(argv: list[str]) -> int:
    """Run ``FOLDER COMPILER ARGUMENT...`` and return the compiler's exit code.

    FOLDER is where the objects are kept. Several processes may run at once.
    """
    folder, command = Path(argv[0]), argv[1:]
    source = Path(command[-1])
    library = source.is_absolute() and (source.parent / "verilated_config.h").is_file()
    if not (library and "-c" in command and "-o" in command):
        return subprocess.call(_with_headers(folder, command))
    at = command.index("-o") + 1
    kept = folder / f"{_key(command[:at] + command[at + 1:], source)}.o"
    code = _once(kept, [argument for argument in command if argument != "-MMD"])
    if code == 0:
        shutil.copyfile(kept, command[at])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
