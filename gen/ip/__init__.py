# SPDX-License-Identifier: Apache-2.0
"""The accelerator and its registers as other tools describe IP, all from the one register list."""
