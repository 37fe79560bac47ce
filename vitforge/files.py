# SPDX-License-Identifier: Apache-2.0
"""``vitforge files``: what comes with ViTForge to be copied, written into a folder."""

__all__ = ["KINDS", "main"]

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vitforge.base.cli import replace_folder, run_command


@dataclass(frozen=True)
class Kind:
    """Files of an installed package whose names end in one of `endings`."""

    package: str
    endings: tuple[str, ...]
    text: str


KINDS = {
    "driver": Kind("vitforge.driver", (".c", ".h", ".md", "_driver.py"),
                   "the drivers in C and Python, ports and example"),
    "benches": Kind("sim", (".v", ".vlt"), "memory, host and top in Verilog, and lint waivers"),
    "spaces": Kind("explore", (".toml",), "the ready spaces of the exploration"),
}


def _write(args: argparse.Namespace) -> int:
    kind = KINDS[args.kind]
    folder = files(kind.package)
    if args.kind == "spaces":
        folder = folder / "spaces"
    found = sorted((item for item in folder.iterdir() if item.name.endswith(kind.endings)),
                   key=lambda item: item.name)
    if not found:
        raise ValueError(f"this installation of ViTForge lacks its {args.kind}: install it again")
    with replace_folder(args.output) as output:
        for item in found:
            (output / item.name).write_bytes(item.read_bytes())
    print(f"{len(found)} files: {args.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {name:8} {kind.text}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="vitforge files", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write out files that come with ViTForge to be copied.",
        epilog=f"kinds:\n{kinds}\n\nexample: vitforge files driver -o build/driver")
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write; files that an earlier call wrote are replaced")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; exit code 2 with one line for bad input."""
    return run_command(_write, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
