# SPDX-License-Identifier: Apache-2.0
"""Proofs without bound of the gateware's generated Verilog: ``python -m formal``."""
