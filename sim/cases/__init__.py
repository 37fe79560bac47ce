# SPDX-License-Identifier: Apache-2.0
"""Cases of the units' benches: input words, expected words, cycle model."""
