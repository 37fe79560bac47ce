# SPDX-License-Identifier: Apache-2.0
"""From an integer network to a program and a memory image."""
