# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.mnist``: the command of `golden.data.mnist`."""

__all__ = ["main"]

import sys

from golden.data.options import mnist as command_line
from vitforge.base.cli import parse_first

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from golden.data.mnist import main

if __name__ == "__main__":
    sys.exit(main())
