# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.quantize``: the command of `golden.commands.quantize`."""

__all__ = ["main"]

import sys

from golden.commands.quantize_options import command_line
from vitforge.base.cli import parse_first

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from golden.commands.quantize import main

if __name__ == "__main__":
    sys.exit(main())
