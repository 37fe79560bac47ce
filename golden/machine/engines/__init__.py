# SPDX-License-Identifier: Apache-2.0
"""Reference models of the accelerator's engines, in plain integers."""
