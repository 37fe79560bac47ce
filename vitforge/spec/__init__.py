# SPDX-License-Identifier: Apache-2.0
"""What hardware and software agree on, without either.

Configuration, words, program,
registers, number formats, tables, widths, latencies.
"""
