# SPDX-License-Identifier: Apache-2.0
"""What a design costs: Yosys and nextpnr, with what helps them."""
