# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of other tools, understood as networks of this project."""
