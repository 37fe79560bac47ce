# SPDX-License-Identifier: Apache-2.0
"""The whole accelerator: program, memories, results, cycles."""
