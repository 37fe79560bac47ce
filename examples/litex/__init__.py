# SPDX-License-Identifier: Apache-2.0
"""The accelerator in a LiteX system: a module to copy, firmware, a simulation and boards."""
