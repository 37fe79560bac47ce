# SPDX-License-Identifier: Apache-2.0
"""The C driver, with ports and an example; ``vitforge files driver`` writes it out."""
