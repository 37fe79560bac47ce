# SPDX-License-Identifier: Apache-2.0
"""Programs that show the project at work."""
