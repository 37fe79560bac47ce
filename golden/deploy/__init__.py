# SPDX-License-Identifier: Apache-2.0
"""From a record of formats to the integers of the datapath."""
