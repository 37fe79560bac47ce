# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.program``: the command of `gen.compiler.command`."""

__all__ = ["main"]

import sys

from gen.compiler.options import command_line
from vitforge.base.cli import parse_first

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from gen.compiler.command import main

if __name__ == "__main__":
    sys.exit(main())
