# SPDX-License-Identifier: Apache-2.0
"""Codes of the requantizer's fields."""

__all__ = ["FORMATS", "OPERATIONS", "THRESHOLDS"]



#: Codes of the field ``format``.
FORMATS = {"uniform": 0, "two-scale": 1, "log2": 2, "table": 3}
#: Codes of the field ``operation``.
OPERATIONS = {"linear": 0, "gelu": 1, "residual": 2}
#: Elements of the input ``thresholds``.
THRESHOLDS = 15
