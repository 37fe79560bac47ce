# SPDX-License-Identifier: Apache-2.0
"""Registers for the host, and the sequencer of the program."""
