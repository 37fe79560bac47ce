# SPDX-License-Identifier: Apache-2.0
"""Scales that another tool has found; docs/methods.md says what the file holds."""
