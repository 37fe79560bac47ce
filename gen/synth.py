# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.synth``: the command of `gen.synthesis.command`."""

__all__ = ["main"]

import sys

from gen.synthesis.command import main

if __name__ == "__main__":
    sys.exit(main())
