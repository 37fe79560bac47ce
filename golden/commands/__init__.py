# SPDX-License-Identifier: Apache-2.0
"""The commands behind ``python -m golden.quantize`` and ``golden.evaluate``."""
