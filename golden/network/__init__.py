# SPDX-License-Identifier: Apache-2.0
"""The integer network: made, run, kept in files."""
