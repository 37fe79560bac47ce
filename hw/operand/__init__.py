# SPDX-License-Identifier: Apache-2.0
"""The operand path: codes of the scratchpad to operands of the array."""
