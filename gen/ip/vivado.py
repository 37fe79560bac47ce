# SPDX-License-Identifier: Apache-2.0
"""``package_ip.tcl``: a script with which Vivado packs the generated folder into its catalogue.

Written by the commands' manual (UG835, UG1118) and not run by Vivado, which is not at hand; a test
runs it in Tcl, with Vivado's commands replaced by others that look at their arguments.
"""

__all__ = ["package_script"]

from gen.elaborate import Design
from gen.ip.buses import buses
from gen.ip.ipxact import LIBRARY, VENDOR
from vitforge.spec.config import Config

_SCRIPT = """\
# SPDX-License-Identifier: Apache-2.0
# Packs this folder as an IP of Vivado, in ./packaged. Generated, and not tried with Vivado.
#   vivado -mode batch -source package_ip.tcl [-tclargs PART]
set here [file dirname [file normalize [info script]]]
set part [expr {{[llength $argv] ? [lindex $argv 0] : "xc7z020clg400-1"}}]
create_project -in_memory -part $part
add_files [file join $here rtl {top}.v]
add_files -fileset constrs_1 [file join $here constraints clock.xdc]
# The clock comes from the design around it; alone it has that of the constraints.
set_property USED_IN {{synthesis out_of_context}} [get_files clock.xdc]
set_property top {top} [current_fileset]
ipx::package_project -root_dir [file join $here packaged] -import_files -force \\
    -vendor {vendor} -library {library} -taxonomy /UserIP
set core [ipx::current_core]
set_property name {top}_{config} $core
set_property version {version} $core
set_property display_name "ViTForge {config}" $core
{associate}
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
puts "packaged: [file join $here packaged]"
"""


def package_script(design: Design, config: Config, version: str) -> str:
    """Return the script; Vivado's versions have two numbers."""
    associate = "\n".join(f"ipx::associate_bus_interfaces -busif {bus.name} -clock clk $core"
                          for bus in buses(design, config) if bus.name.endswith("_axi"))
    return _SCRIPT.format(top=design.top, config=config.name, vendor=VENDOR, library=LIBRARY,
                          version=".".join(version.split(".")[:2]), associate=associate)
