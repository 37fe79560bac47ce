# SPDX-License-Identifier: Apache-2.0
"""The datapath and all around it, in Amaranth."""
