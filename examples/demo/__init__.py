# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits through the generated Verilog of the accelerator and of its units."""
