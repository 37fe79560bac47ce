# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.zynq``: Tcl that makes a bitstream for PYNQ from a folder of gen.verilog.

Written by Vivado's manuals and **not run**: Vivado is not at hand. A test runs it in Tcl with
Vivado's commands replaced, and looks at what it connects.
"""

__all__ = ["design", "main"]

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.ip.ipxact import LIBRARY, VENDOR
from vitforge.base.cli import replace_folder, run_command
from vitforge.spec.register_map import ADDRESS_BITS

_DESIGN = """\
# SPDX-License-Identifier: Apache-2.0
# {core} on a Zynq-7000: registers on GP0, memory on HP0, interrupt 0. Generated, and not tried with
# Vivado.
#   vivado -mode batch -source {folder}/package_ip.tcl      (once: packs the core)
#   vivado -mode batch -source design.tcl
set here [file dirname [file normalize [info script]]]
create_project vitforge [file join $here vivado] -part {part} -force
set_property ip_repo_paths [list {{{folder}/packaged}}] [current_project]
update_ip_catalog
create_bd_design system

create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 processor
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \\
    -config {{make_external "FIXED_IO, DDR"}} [get_bd_cells processor]
set_property -dict [list \\
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ {frequency:g} \\
    CONFIG.PCW_USE_M_AXI_GP0 1 \\
    CONFIG.PCW_USE_S_AXI_HP0 1 CONFIG.PCW_S_AXI_HP0_DATA_WIDTH {bits} \\
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 CONFIG.PCW_IRQ_F2P_INTR 1] [get_bd_cells processor]

create_bd_cell -type ip -vlnv {vendor}:{library}:{core} accelerator
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1] [get_bd_cells control]
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect memory
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1] [get_bd_cells memory]
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset

foreach {{one other}} {{
    processor/M_AXI_GP0 control/S00_AXI
    control/M00_AXI     accelerator/s_axi
    accelerator/m_axi   memory/S00_AXI
    memory/M00_AXI      processor/S_AXI_HP0
}} {{ connect_bd_intf_net [get_bd_intf_pins $one] [get_bd_intf_pins $other] }}
foreach pin {{
    processor/M_AXI_GP0_ACLK processor/S_AXI_HP0_ACLK
    control/aclk memory/aclk reset/slowest_sync_clk accelerator/clk
}} {{ connect_bd_net [get_bd_pins processor/FCLK_CLK0] [get_bd_pins $pin] }}
connect_bd_net [get_bd_pins processor/FCLK_RESET0_N] [get_bd_pins reset/ext_reset_in]
foreach pin {{control/aresetn memory/aresetn}} {{
    connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin]
}}
# The core's reset is active high.
connect_bd_net [get_bd_pins reset/peripheral_reset] [get_bd_pins accelerator/rst]
connect_bd_net [get_bd_pins accelerator/interrupt] [get_bd_pins processor/IRQ_F2P]

assign_bd_address -offset 0x43C00000 -range {registers} \\
    -target_address_space [get_bd_addr_spaces processor/Data] \\
    [get_bd_addr_segs accelerator/s_axi/registers]
# All of the processor's memory at the addresses that it has there.
assign_bd_address -target_address_space [get_bd_addr_spaces accelerator/m_axi] \\
    [get_bd_addr_segs processor/S_AXI_HP0/HP0_DDR_LOWOCM]
validate_bd_design
save_bd_design

make_wrapper -files [get_files system.bd] -top -import
set_property top system_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
file copy -force [file join $here vivado vitforge.runs impl_1 system_wrapper.bit] \\
    [file join $here vitforge.bit]
file copy -force [file join $here vivado vitforge.gen sources_1 bd system hw_handoff system.hwh] \\
    [file join $here vitforge.hwh]
puts "bitstream: [file join $here vitforge.bit]"
"""


def design(folder: Path, manifest: dict[str, Any], part: str, frequency: float) -> str:
    """Return the script for a folder of gen.verilog with this manifest.

    Raises
    ------
    ValueError
        If it has no accelerator, or one whose memory bus a Zynq-7000 doesn't have.
    """
    if "accelerator" not in manifest["units"]:
        raise ValueError(f"{folder} has no accelerator, but {', '.join(manifest['units'])}")
    config = manifest["configuration"]
    bits = config["axi_bits"]
    if bits > 128:
        raise ValueError(f"the memory bus must have at most 128 bits, not {bits}")
    top = manifest["units"]["accelerator"]["top"]
    return _DESIGN.format(
        core=f"{top}_{config['name']}", folder=folder.absolute(), part=part, frequency=frequency,
        # HP ports have 32 or 64 bits; SmartConnect converts what is wider.
        bits=min(bits, 64), vendor=VENDOR, library=LIBRARY,
        registers=f"0x{max(1 << ADDRESS_BITS, 4096):x}")


def _write(args: argparse.Namespace) -> int:
    path = args.folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{args.folder} is no folder of gen.verilog: no manifest.json") from None
    if not 1 <= args.frequency <= 250:
        raise ValueError(f"--frequency must be 1 to 250 MHz, not {args.frequency:g}")
    text = design(args.folder, manifest, args.part, args.frequency)
    with replace_folder(args.output) as folder:
        (folder / "design.tcl").write_text(text, encoding="utf-8")
    print(f"for Vivado, and not tried with it: {args.output / 'design.tcl'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.zynq", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write Tcl for Vivado: the processors of a Zynq-7000, the accelerator with\n"
                    "its registers on GP0 and its memory on HP0, bitstream and .hwh for PYNQ. Not\n"
                    "tried with Vivado.",
        epilog="example: python -m examples.zynq build/edge8 -o build/zynq")
    parser.add_argument("folder", type=Path, metavar="FOLDER",
                        help="of gen.verilog; its package_ip.tcl comes first")
    parser.add_argument("--part", default="xc7z020clg400-1", metavar="CHIP",
                        help="(default: xc7z020clg400-1, that of a PYNQ-Z2)")
    parser.add_argument("--frequency", type=float, default=100.0, metavar="MHZ",
                        help="of the accelerator's clock (default: 100)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write: design.tcl")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the script; exit code 2 with one line for bad input."""
    return run_command(_write, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
