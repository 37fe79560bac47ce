# SPDX-License-Identifier: Apache-2.0
"""Versions of ONNX's operators that a network is written in."""

__all__ = ["HIGHEST", "LOWEST", "OPSET"]

#: 17 is the first with LayerNormalization; 21, codes of 4 bits; 23 is the newest that was tried.
LOWEST, OPSET, HIGHEST = 17, 21, 23
