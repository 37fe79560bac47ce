# SPDX-License-Identifier: Apache-2.0
"""The accelerator as a LiteX module: copy this file into your design.

It needs LiteX and LiteDRAM, and a folder that ``python -m gen.verilog`` has written::

    self.vitforge = ViTForge(self.platform, "build/edge8")
    self.vitforge.join(self)

`ViTForge.join` puts the registers on the processor's bus, the interrupt on its line ``vitforge``,
and the memory bus straight on a port of LiteDRAM's crossbar, beside the processor's caches and not
behind them: ``vitforge/driver/port_litex.h`` flushes these where the driver needs it.
"""

__all__ = ["ViTForge"]

import json
from pathlib import Path

from litedram.frontend.axi import LiteDRAMAXI2Native
from litex.gen import ClockSignal, Instance, LiteXModule, ResetSignal, Signal
from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import axi
from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourceLevel

#: Signals of each channel beside valid and ready, and whether its source is the bus's master.
_LITE = {"aw": ("addr", True), "w": ("data strb", True), "b": ("resp", False),
         "ar": ("addr", True), "r": ("data resp", False)}
_ADDRESS = "id addr len size burst lock cache prot qos region"
_FULL = {"aw": (_ADDRESS, True), "w": ("data strb last", True), "b": ("id resp", False),
         "ar": (_ADDRESS, True), "r": ("id data resp last", False)}


def _ports(bus, prefix, channels, is_master):
    """Return the ports of an `Instance` for one bus, as keywords."""
    ports = {}
    for channel, (names, from_master) in channels.items():
        endpoint = getattr(bus, channel)
        out, back = ("o", "i") if from_master == is_master else ("i", "o")
        ports[f"{out}_{prefix}_{channel}valid"] = endpoint.valid
        ports[f"{back}_{prefix}_{channel}ready"] = endpoint.ready
        for name in names.split():
            ports[f"{out}_{prefix}_{channel}{name}"] = getattr(endpoint, name)
    return ports


class ViTForge(LiteXModule):
    """One accelerator.

    Parameters
    ----------
    platform
        Gets the Verilog as a source.
    folder
        Of ``python -m gen.verilog``; its configuration is read from ``manifest.json``.

    Attributes
    ----------
    s_axi : AXILiteInterface
        Registers, 4096 bytes.
    m_axi : AXIInterface
        Memory bus; incrementing bursts, one identifier.
    interrupt : Signal
        High until the driver acknowledges the event in the accelerator.
    ev : EventManager
        The interrupt as LiteX's processors take it.
    """

    def __init__(self, platform, folder):
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        top = manifest["units"]["accelerator"]["top"]
        self.s_axi = axi.AXILiteInterface(data_width=32, address_width=32)
        self.m_axi = axi.AXIInterface(data_width=manifest["configuration"]["axi_bits"],
                                      address_width=32, id_width=1)
        self.interrupt = Signal()
        ports = _ports(self.s_axi, "s_axi", _LITE, False) | _ports(self.m_axi, "m_axi", _FULL, True)
        for channel in ("aw", "ar"):
            # The registers' own part of an address; what kind of access it is doesn't matter.
            ports[f"i_s_axi_{channel}addr"] = ports[f"i_s_axi_{channel}addr"][:12]
            ports[f"i_s_axi_{channel}prot"] = 0
        self.specials += Instance(top, i_clk=ClockSignal("sys"), i_rst=ResetSignal("sys"),
                                  o_interrupt=self.interrupt, **ports)
        platform.add_source(str((folder / "rtl" / f"{top}.v").absolute()))
        self.ev = EventManager()
        self.ev.run = EventSourceLevel()
        self.ev.finalize()
        self.comb += self.ev.run.trigger.eq(self.interrupt)

    def join(self, soc, name="vitforge", origin=0x9000_0000, buffer_beats=32):
        """Connect registers, memory and interrupt of this module, the SoC's attribute `name`.

        Parameters
        ----------
        soc
            With an SDRAM (``add_sdram``), whose first byte is at ``main_ram``.
        origin
            Of the registers; in a region that the processor does not cache.
        buffer_beats
            Of LiteDRAM's buffers for reads and for writes: two longest bursts of 16 beats.

        Raises
        ------
        ValueError
            If the memory's port is wider than the accelerator's bus.
        """
        soc.bus.add_slave(name, self.s_axi, SoCRegion(origin=origin, size=0x1000, cached=False))
        soc.irq.add(name)
        native = soc.sdram.crossbar.controller.data_width
        if native > self.m_axi.data_width:
            # `LiteDRAMAXI2NativeW` counts commands less beats, and behind the converter to a wider
            # port a beat may leave before its command. Mended, it is slow (docs/soc.md).
            raise ValueError(f"LiteDRAM's port has {native} bits, and the accelerator's bus "
                             f"{self.m_axi.data_width}: generate it with axi_bits = {native}, "
                             "because LiteDRAM before 2026.04 loses count of a narrower bus's "
                             "writes and leaves one without an answer")
        port = soc.sdram.crossbar.get_port(mode="both", data_width=self.m_axi.data_width)
        self.to_memory = LiteDRAMAXI2Native(
            self.m_axi, port, w_buffer_depth=buffer_beats, r_buffer_depth=buffer_beats,
            base_address=soc.mem_map["main_ram"])
