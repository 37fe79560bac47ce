# SPDX-License-Identifier: Apache-2.0
"""What is proved of what, and how verdicts are called: read before the gateware is imported."""

__all__ = ["ASSUMPTION", "CONFIGS", "LIMIT", "NAMES", "PROPERTY", "RESULTS", "SITUATION", "Verdict",
           "command_line", "good"]

import argparse
from dataclasses import dataclass
from pathlib import Path

from vitforge.spec.config import Config, load

#: What the name of a checker's output begins with (`formal.checker`).
PROPERTY, ASSUMPTION, SITUATION = "p_", "a_", "c_"
#: Of `formal.designs.DESIGNS`; a test compares.
NAMES = ("skid", "skid-flowing", "queue", "counters", "split", "join", "ring", "fetch-buffer",
         "bursts", "axi-lite-write", "axi-lite-read", "reader", "writer", "run-state", "systolic",
         "softmax", "requant", "layernorm")
OUTPUT = Path("build/formal")
RESULTS = "formal.json"
#: Seconds for a property.
LIMIT = 120
#: Presets, and machines that differ from them in what the proofs depend on.
CONFIGS = {config.name: config for config in (
    load("tiny"), load("edge8"),
    Config(name="wide-bus", rows=4, cols=8, lanes=4, max_keys=8, max_channels=8, max_tokens=16,
           axi_bits=128, burst_beats=4, fetch_beats=16, modes="single+pair"),
    Config(name="one-lane", rows=2, cols=2, lanes=1, max_keys=16, max_channels=16, max_tokens=16,
           axi_bits=64, burst_beats=16, fetch_beats=32, exponential="iexp"))}


@dataclass(frozen=True)
class Verdict:
    """What came of a property.

    Attributes
    ----------
    name
        Of the property.
    status
        "proved", "disproved" or "undecided".
    frame
        Cycle of the counterexample; -1 without one.
    """

    name: str
    status: str
    frame: int = -1


def good(verdict: Verdict) -> bool:
    """Whether a property holds, or a situation comes true."""
    return verdict.status == ("proved" if verdict.name.startswith(PROPERTY) else "disproved")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m formal", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prove the promises of the generated Verilog without bound, with Yosys and\n"
                    "ABC (Debian's berkeley-abc). What is proved already is not proved again.",
        epilog="example: python -m formal skid writer --config tiny\n\n"
               f"designs: {', '.join(NAMES)}\nconfigurations: {', '.join(CONFIGS)}")
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help="default: all")
    parser.add_argument("--config", action="append", metavar="C",
                        help="only this configuration; repeatable")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="SECONDS",
                        help="of a processor for each property, until it is "
                             "undecided (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, metavar="DIR",
                        help=f"{RESULTS} and the files of each proof (default: %(default)s)")
    return parser
