# SPDX-License-Identifier: Apache-2.0
"""Names in the generated Verilog that the tools behind it look for."""

__all__ = ["PRODUCT"]

#: Begins the registers of the array's products, followed by ROW_COLUMN: `gen.synthesis.floorplan`
#: places the multipliers by them.
PRODUCT = "product_"
