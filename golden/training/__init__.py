# SPDX-License-Identifier: Apache-2.0
"""Training of the project's own networks."""
