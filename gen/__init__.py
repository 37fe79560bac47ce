# SPDX-License-Identifier: Apache-2.0
"""Turns designs and networks into files: Verilog, programs, registers, areas."""
