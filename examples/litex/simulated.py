# SPDX-License-Identifier: Apache-2.0
"""The simulated system: VexRiscv, LiteDRAM with a board's memory, a UART, and the accelerator.

``python -m examples.litex.simulated BOARD --verilog DIR -o DIR`` writes its Verilog and its
software; it is run by `examples.litex.simulate`, which builds and runs the rest.
"""

__all__ = ["CLOCK", "MEMORIES", "System", "main"]

import argparse
import sys
from pathlib import Path

from litedram import modules
from litedram.common import (
    PhySettings,
    get_default_cl,
    get_default_cwl,
    get_sys_latency,
    get_sys_phase,
)
from litedram.phy.model import SDRAMPHYModel, get_sdram_phy_settings
from litex.build.generic_platform import Pins, Subsignal
from litex.build.io import CRG
from litex.build.sim import SimPlatform
from litex.gen import LiteXModule
from litex.soc.integration.builder import Builder
from litex.soc.integration.common import get_mem_data
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect.csr import CSRStorage

from examples.litex.options import BOARDS
from examples.litex.vitforge_litex import ViTForge

#: Of the system, in Hz: that of the boards.
CLOCK = 50_000_000


def _sdram(contents):
    """Return an SDRAM of 16 bits at the system's clock, as on a ULX3S."""
    module = modules.MT48LC16M16(CLOCK, "1:1")
    settings = get_sdram_phy_settings(memtype=module.memtype, data_width=16, clk_freq=CLOCK)
    return SDRAMPHYModel(module=module, settings=settings, clk_freq=CLOCK, init=contents)


def _ddr3(contents):
    """Return a DDR3 of 16 bits at twice the system's clock, as on an ECPIX-5.

    Latencies are those of `litedram.phy.ECP5DDRPHY`: four transfers of 16 bits a cycle, and a burst
    of eight as one word of 128. The board's memory has four times as many rows.
    """
    module, phases = modules.MT41K64M16(CLOCK, "1:2"), 2
    tick = 1 / (phases * CLOCK)
    read, write = get_default_cl(module.memtype, tick), get_default_cwl(module.memtype, tick)
    cycles, write_cycles = get_sys_latency(phases, read), get_sys_latency(phases, write)
    settings = PhySettings(
        # The model takes two transfers a phase of DDR3, and four of RPC.
        phytype="SDRAMPHYModel", memtype="RPC", databits=16, dfi_databits=64, nphases=phases,
        rdphase=get_sys_phase(phases, cycles, read),
        wrphase=get_sys_phase(phases, write_cycles, write), cl=read, cwl=write,
        read_latency=cycles + 10, write_latency=write_cycles)
    model = SDRAMPHYModel(module=module, settings=settings, clk_freq=CLOCK, init=contents)
    settings.memtype = module.memtype       # for LiteDRAM's controller
    return model


#: The memory of each board, as a function of its contents: words of 32 bits.
MEMORIES = dict(zip(BOARDS, (_sdram, _ddr3), strict=True))


def _io():
    def group(name, **signals):
        return (name, 0, *(Subsignal(signal, Pins(width)) for signal, width in signals.items()))

    return [
        ("sys_clk", 0, Pins(1)),
        group("serial", source_valid=1, source_ready=1, source_data=8,
              sink_valid=1, sink_ready=1, sink_data=8),
        group("finish", valid=1, code=8),
        group("observed", arvalid=1, arlen=8, rvalid=1, rlast=1),
    ]


class _Platform(SimPlatform):
    """Writes Verilog, and no C++ of LiteX's own, which wants more packages."""

    def build(self, fragment, build_dir, **_):
        folder = Path(build_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.finalize(fragment)
        output = self.get_verilog(fragment, name="soc")
        self.resolve_signals(output.ns)
        for name, text in output.data_files.items():
            (folder / name).write_text(text, encoding="ascii")
        # Without the date, so that what is unchanged is not built again.
        lines = [line for line in output.main_source.splitlines(keepends=True)
                 if not line.startswith("//")]
        (folder / "soc.v").write_text("".join(lines), encoding="utf-8")
        (folder / "sources.txt").write_text(
            "".join(f"{source[0]}\n" for source in self.sources), encoding="utf-8")
        return output.ns


class _Finish(LiteXModule):
    """A write of the exit code ends the simulation."""

    def __init__(self, pads):
        self.code = CSRStorage(8, description="Exit code.")
        self.comb += pads.code.eq(self.code.storage)
        self.sync += pads.valid.eq(self.code.re)


class System(SoCCore):
    """The system.

    Parameters
    ----------
    folder
        Of ``python -m gen.verilog``.
    memory
        One of `MEMORIES`, with its contents; the BIOS jumps to the first word.
    """

    def __init__(self, folder, memory):
        platform = _Platform("SIM", _io())
        self.crg = CRG(platform.request("sys_clk"))
        SoCCore.__init__(self, platform, clk_freq=CLOCK, ident="ViTForge on LiteX",
                         ident_version=False, cpu_type="vexriscv", cpu_variant="standard",
                         uart_name="sim", integrated_rom_size=0x10000, integrated_sram_size=0x4000)
        self.sdrphy = memory
        self.add_sdram("sdram", phy=memory, module=memory.module, l2_cache_size=2048)
        # The memory is full before the processor begins; a test would overwrite it.
        self.add_constant("SDRAM_TEST_DISABLE")
        self.add_constant("ROM_BOOT_ADDRESS", self.mem_map["main_ram"])
        for name in ("NO_CRC", "NO_DELAYS"):
            self.add_config(f"BIOS_{name}")
        self.finish = _Finish(platform.request("finish"))

        self.vitforge = ViTForge(platform, folder)
        self.vitforge.join(self)
        bus, pads = self.vitforge.m_axi, platform.request("observed")
        self.comb += [
            pads.arvalid.eq(bus.ar.valid & bus.ar.ready), pads.arlen.eq(bus.ar.len),
            pads.rvalid.eq(bus.r.valid & bus.r.ready), pads.rlast.eq(bus.r.last),
        ]


def main(argv=None):
    """Write Verilog and software, or with ``--memory`` the Verilog of the filled memory."""
    parser = argparse.ArgumentParser(prog="python -m examples.litex.simulated")
    parser.add_argument("board", choices=MEMORIES)
    parser.add_argument("--verilog", type=Path, required=True, help="folder of gen.verilog")
    parser.add_argument("--memory", type=Path, help="contents of the memory, little-endian")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args(argv)
    contents = [] if args.memory is None else get_mem_data(
        str(args.memory), data_width=32, endianness="little")
    system = System(args.verilog, MEMORIES[args.board](contents))
    builder = Builder(system, output_dir=str(args.output))
    builder.build(run=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
