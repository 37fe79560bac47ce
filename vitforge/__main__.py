# SPDX-License-Identifier: Apache-2.0
"""``python -m vitforge`` is ``vitforge``."""

import sys

from vitforge.command import main

sys.exit(main())
