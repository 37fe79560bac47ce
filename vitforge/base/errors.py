# SPDX-License-Identifier: Apache-2.0
"""Errors that every room knows."""

__all__ = ["ToolchainError"]


class ToolchainError(RuntimeError):
    """A tool is missing or too old; the message is one line and says how to get it."""
