# SPDX-License-Identifier: Apache-2.0
"""The drain: accumulators to codes in the scratchpad, with the statistics of rows."""
