# SPDX-License-Identifier: Apache-2.0
"""Codes of the requantizer's fields."""

__all__ = ["OPERATIONS", "THRESHOLDS"]

#: Codes of the field ``operation``.
OPERATIONS = {"linear": 0, "gelu": 1, "residual": 2}
#: Elements of the input ``thresholds``.
THRESHOLDS = 15
