# SPDX-License-Identifier: Apache-2.0
"""The memory bus: bursts, reader, writer, and the way from beats to words and banks."""
