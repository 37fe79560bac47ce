# SPDX-License-Identifier: Apache-2.0
"""Number formats, and who fits them to values."""
