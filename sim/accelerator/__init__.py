# SPDX-License-Identifier: Apache-2.0
"""Simulation of the whole accelerator against the golden model."""
