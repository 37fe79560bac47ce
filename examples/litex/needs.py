# SPDX-License-Identifier: Apache-2.0
"""What the LiteX example needs beside the project's own packages."""

__all__ = ["COMPILER", "missing"]

import importlib.util
import shutil

from vitforge.base.cli import EXTRAS

COMPILER = "riscv64-unknown-elf-gcc"


def missing() -> str | None:
    """Return the one line that says what is not there, and the command that brings it."""
    for name, extra in EXTRAS.items():
        if extra == "soc" and importlib.util.find_spec(name) is None:
            return f"{name} is not installed: `pip install 'vitforge[soc]'` brings it"
    for program, package in ((COMPILER, "gcc-riscv64-unknown-elf"), ("make", "make")):
        if shutil.which(program) is None:
            return f"{program} not found: on Debian, apt install {package}"
    return None
