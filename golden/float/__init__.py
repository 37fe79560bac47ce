# SPDX-License-Identifier: Apache-2.0
"""Float networks under timm's names, and their checkpoints."""
