# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.litex``: ten digits through a simulated LiteX system."""

__all__ = ["main"]

import sys
from collections.abc import Sequence

from examples.litex.options import simulate_line
from vitforge.base.cli import parse_first, run_command

if __name__ == "__main__":
    parse_first(simulate_line(), "golden", "sim", "soc")   # what comes next takes seconds

from examples.litex.simulate import simulate


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate; 1 if anything differs, 2 for bad input or a missing tool."""
    return run_command(simulate, simulate_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
