# SPDX-License-Identifier: Apache-2.0
"""A quantization method that is no part of ViTForge; docs/own-method.md goes through it."""
