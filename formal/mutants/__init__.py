# SPDX-License-Identifier: Apache-2.0
"""Mutants of the units: what a bench sees, and what nobody can: ``python -m formal.mutants``."""
