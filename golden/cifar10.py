# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.cifar10``: the command of `golden.data.cifar10`."""

__all__ = ["main"]

import sys

from golden.data.options import cifar10 as command_line
from vitforge.base.cli import parse_first

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from golden.data.cifar10 import main

if __name__ == "__main__":
    sys.exit(main())
