# SPDX-License-Identifier: Apache-2.0
"""Number formats by name: their codes in an instruction, and what attention codes there are."""

__all__ = ["ATTENTION", "CODE_BITS", "FORMATS", "GELUS", "LOG2_BITS", "LOG2_DEPTH", "MIDDLE",
           "SUBSETS", "attention_format", "numbered"]

from collections.abc import Mapping
from itertools import combinations

#: Width of a code in the scratchpad.
CODE_BITS = 8
#: Code of zero where codes are around the middle: of scores, keys and values.
MIDDLE = 1 << CODE_BITS - 1
#: Codes of the fields `operand_format` and `format`. Softmax's table gives mantissas, which are
#: uniform codes.
FORMATS = {"uniform": 0, "two-scale": 1, "log2": 2, "table": 3}
#: Attention codes that the accelerator multiplies, and the widest of each; the narrowest has 3
#: bits. All but log2 are of `vitforge.spec.probability_levels`.
ATTENTION = {"log2": 5, "uniform": 8, "two-scale": 8, "log-sqrt2": 4, "table": 4}
#: What a GELU is: the exact one, or QuickGELU.
GELUS = ("exact", "quick")
#: Zeros behind the one of the largest operand of log2 codes: beyond them a probability is 0.
LOG2_DEPTH = 15
#: Widest log2 codes that are all powers of two, but for the highest.
LOG2_BITS = LOG2_DEPTH.bit_length()


#: What a machine may have of `FORMATS`, all of them first.
SUBSETS = tuple("+".join(("uniform", *some)) for count in range(len(FORMATS) - 1, -1, -1)
                for some in combinations([name for name in FORMATS if name != "uniform"], count))


def attention_format(attention: str) -> str:
    """Return the format of which the operands are that attention codes give."""
    return {"log-sqrt2": "two-scale", "linear": "uniform"}.get(attention, attention)


def numbered(codes: Mapping[str, int]) -> str:
    """Say in words what a field's codes are."""
    return ", ".join(f"{code} {name}" for name, code in codes.items())
