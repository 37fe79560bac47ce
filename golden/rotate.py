# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.rotate``: the command of `golden.commands.rotate`."""

__all__ = ["main"]

import sys

from golden.commands.options import rotate as command_line
from vitforge.base.cli import parse_first

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from golden.commands.rotate import main

if __name__ == "__main__":
    sys.exit(main())
