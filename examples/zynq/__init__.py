# SPDX-License-Identifier: Apache-2.0
"""The accelerator beside the processors of a Zynq-7000: a block design for Vivado, as Tcl."""
