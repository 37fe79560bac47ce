# SPDX-License-Identifier: Apache-2.0
"""The datapath in Amaranth, and the configuration that every package shares."""
