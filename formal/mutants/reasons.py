# SPDX-License-Identifier: Apache-2.0
"""Why a mutant that differs is left alive: a sentence for each that no bench sees."""

__all__ = ["REASONS", "reason"]

import re
from collections.abc import Mapping

#: Pattern of ``unit mutant`` (`formal.mutants.netlist.Mutant` as text) to the sentence.
REASONS: Mapping[str, str] = {}


def reason(unit: str, mutant: str) -> str | None:
    """Return why a bench doesn't see a mutant, if that is known."""
    return next((why for pattern, why in REASONS.items() if re.search(pattern, f"{unit} {mutant}")),
                None)
