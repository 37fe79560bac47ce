# SPDX-License-Identifier: Apache-2.0
"""Parts that know nothing of the accelerator: streams, queues, counters, memories, layouts."""
