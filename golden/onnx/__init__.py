# SPDX-License-Identifier: Apache-2.0
"""Quantized networks as ONNX files, for other tools."""
