# SPDX-License-Identifier: Apache-2.0
"""Manual, header and JSON of the registers say what the map says."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from gen.registers import FILES, header, main, markdown, to_json, verilog
from vitforge.spec.config import load
from vitforge.spec.register_map import FAULTS, REGISTERS, constants

ROOT = Path(__file__).parents[1]


def test_the_manual_in_docs_is_up_to_date():
    text = (ROOT / "docs" / "registers.md").read_text(encoding="utf-8")
    assert text == markdown(), "python -m gen.registers -o DIR; cp DIR/registers.md docs"


def test_the_manual_names_everything():
    text = markdown(load("tiny"))
    for register in REGISTERS:
        assert f"| `0x{register.offset:03x}` | `{register.name}` | {register.access} |" in text
        assert all(f"| `{item.name}` | {item.text} |" in text for item in register.fields)
    for name, value in FAULTS.items():
        assert f"| {value} | {name} |" in text
    for value in constants(load("tiny")).values():
        assert f"`0x{value:08x}`" in text
    # A cell that has a bar in it would break its row.
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| `0x")}
    assert columns == {6}


def test_macros_are_the_map():
    lines = verilog().splitlines()
    assert "`define VITFORGE_CONTROL 12'h010" in lines
    assert lines[1:] == [f"`define VITFORGE_{item.name} 12'h{item.offset:03x}"
                         for item in REGISTERS]


def test_json_is_the_map():
    config = load("tiny")
    plain, full = json.loads(to_json()), json.loads(to_json(config))
    assert plain["configuration"] is None and full["configuration"] == "tiny"
    for register, one, other in zip(REGISTERS, plain["registers"], full["registers"], strict=True):
        assert (one["name"], one["offset"], one["access"], one["reset"], one["locked_while_busy"]) \
            == (register.name, register.offset, register.access, register.reset, register.locked)
        assert other["reset"] == constants(config).get(register.name, register.reset)
        assert [(item["name"], item["low"], item["width"]) for item in one["fields"]] \
            == [(item.name, item.low, item.width) for item in register.fields]
    kinds = next(item for item in plain["registers"] if item["name"] == "FAULT")["fields"][0]
    assert {item["name"]: item["value"] for item in kinds["values"]} == FAULTS


@pytest.mark.parametrize("config", [None, "tiny"])
def test_a_compiler_reads_the_same_numbers_from_the_header(tmp_path, config):
    """Every macro and enumerator, as C and C++ know it, against the map."""
    config = config and load(config)
    known = constants(config) if config else {}
    expected = {}
    for register in REGISTERS:
        expected[f"{register.name}_OFFSET"] = register.offset
        if value := known.get(register.name, register.reset):
            expected[f"{register.name}_RESET"] = value
        for item in register.fields:
            expected[f"{register.name}_{item.name.upper()}_SHIFT"] = item.low
            expected[f"{register.name}_{item.name.upper()}_MASK"] = item.mask
    expected |= {f"FAULT_KIND_{name.upper().replace(' ', '_')}": value
                 for name, value in FAULTS.items()}
    expected |= {"ADDRESS_SPACE_BYTES": 4096, "VERSION_MAJOR": 1, "VERSION_MINOR": 0}
    text = header(config)
    defined = re.findall(r"^(?:#define| +)\s*VITFORGE_(\w+?)(?: =)? (?!\{)\w", text, re.M)
    assert sorted(defined) == sorted(expected)
    (tmp_path / "vitforge_registers.h").write_text(text)
    lines = "".join(f'    printf("{name} %lu\\n", (unsigned long)VITFORGE_{name});\n'
                    for name in expected)
    (tmp_path / "show.c").write_text(
        '#include "vitforge_registers.h"\n#include "vitforge_registers.h"\n#include <stdio.h>\n'
        "static const char *const names[] = VITFORGE_FAULT_KIND_NAMES;\n"
        f"int main(void) {{\n{lines}"
        "    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)\n"
        '        printf("%u %s\\n", i, names[i]);\n    return 0;\n}\n')
    for compiler, standard in (("gcc", "c99"), ("g++", "c++98")):
        language = "c" if compiler == "gcc" else "c++"
        subprocess.run([compiler, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic",
                        "-x", language, "show.c", "-o", "show"], cwd=tmp_path, check=True,
                       timeout=60)
        printed = subprocess.run([tmp_path / "show"], check=True, timeout=60, text=True,
                                 capture_output=True).stdout.splitlines()
        assert printed == [*(f"{name} {value}" for name, value in expected.items()),
                           *(f"{value} {name}" for name, value in FAULTS.items())]


@pytest.mark.parametrize("config", [None, "tiny"])
def test_command_writes_its_files(tmp_path, capsys, config):
    arguments = [] if config is None else ["--config", config]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in FILES]
    config = config and load(config)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()
            if path.name != ".vitforge"} == {name: make(config) for name, make in FILES.items()}


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "the following arguments are required: -o/--output"),
    (["--config", "huge", "-o", "out"], "no configuration 'huge'"),
    (["-o", "file"], "is a file"),
])
def test_bad_input_gets_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
