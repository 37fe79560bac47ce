# SPDX-License-Identifier: Apache-2.0
"""A handwritten digit through the integer network and the generated Verilog of its units."""
