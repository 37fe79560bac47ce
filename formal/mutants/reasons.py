# SPDX-License-Identifier: Apache-2.0
"""Why a mutant that differs is left alive: a sentence for each that no bench sees."""

__all__ = ["REASONS", "reason"]

import re
from collections.abc import Mapping

#: Pattern of ``unit mutant`` (`formal.mutants.netlist.Mutant` as text) to the sentence.
REASONS: Mapping[str, str] = {
    r"^layernorm scale\.step\[2\] Q\[2\] cnot0":
        "it counts 4, 5, 2, 3, 0, 1, 6, 7 then: 8 steps too, and only the last one is looked at",
    r"^layernorm statistics\.o__payload\.variance\[11\] B\[11\] cnot1":
        "inverted where bit 32 of 34 is 1: then nothing is shifted, and the table's argument is "
        "the bits from 15 on",
    r"^requant scale_1\.high_digit_product_1\[27\] Q\[27\] cnot1":
        "inverted where bit 16 is 1: both are looked at to see an overflow, and either is enough",
    r"^requant width_17\[0\] Q\[0\] cnot1":
        "inverted where bit 3 is 1: 9 instead of 8, of which the mask of 8 bits is the same",
    r"^requant \$504 A\[1\] cnot1":
        "inverted where bit 5 of the mask of a log2 code is 1, which has at most 4 bits",
    r"^requant scale_1\.coarse_late\[0\] Q\[0\] cnot1":
        "2 and 3 are taken for each other, which group 2 alone tells apart: no product is so wide",
}


def reason(unit: str, mutant: str) -> str | None:
    """Return why a bench doesn't see a mutant, if that is known."""
    return next((why for pattern, why in REASONS.items() if re.search(pattern, f"{unit} {mutant}")),
                None)
