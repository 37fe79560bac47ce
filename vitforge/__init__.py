# SPDX-License-Identifier: Apache-2.0
"""ViTForge's ground floor: the one command, and what every room of the project shares."""
