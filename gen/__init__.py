# SPDX-License-Identifier: Apache-2.0
"""Turns designs into files: Verilog, vectors, reports."""
