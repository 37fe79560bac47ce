# SPDX-License-Identifier: Apache-2.0
"""Benches and bus models that only tests use."""
