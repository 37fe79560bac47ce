# SPDX-License-Identifier: Apache-2.0
"""The golden model in PyTorch: every bit, every cycle, and the quantizers."""
