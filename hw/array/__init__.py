# SPDX-License-Identifier: Apache-2.0
"""The systolic array with its weights, operands in and sums out, and the banks."""
