# SPDX-License-Identifier: Apache-2.0
"""Simulation of the generated Verilog under Verilator, against the golden model."""
