# SPDX-License-Identifier: Apache-2.0
"""What the four units compute, and on which cycle they give it."""
