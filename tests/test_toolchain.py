# SPDX-License-Identifier: Apache-2.0
"""Discovery of the toolchain, on machines made of empty programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim import objcache, toolchain
from sim.toolchain import find
from vitforge.base.errors import ToolchainError

OLD = "Verilator 5.006 2023-01-22 rev (Debian 5.006-3)"
NEW = "Verilator 5.036 2025-04-27 rev v5.036"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes a PATH with these programs, and a package or none."""
    def make(*programs: str, verilator: str | None = None, package: tuple[int, int] | None = None):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in programs:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        if verilator is not None:
            (folder / "verilator").write_text(f"#!/bin/sh\necho '{verilator}'\n")
            (folder / "verilator").chmod(0o755)
        found = None if package is None else (tmp_path / "package", package)
        monkeypatch.setattr(toolchain, "_package", lambda: found)
        return str(folder)
    return make


@pytest.fixture(autouse=True)
def no_other_optimisation(monkeypatch):
    for name in toolchain.OPTIMISATION:
        monkeypatch.delenv(name, raising=False)


def test_new_system_verilator_is_used(machine):
    path = machine("g++", "make", "perl", verilator=NEW, package=(5, 48))
    tools = find(path)
    assert (tools.origin, tools.version, tools.version_text) == ("system", (5, 36), "5.036")
    assert tools.verilator == Path(path) / "verilator"
    assert tools.environment["MAKEFLAGS"] == "OPT_FAST=-O1 OPT_GLOBAL=-O2"
    assert "VERILATOR_ROOT" not in tools.environment


def test_the_environment_may_choose_the_optimisation(machine, monkeypatch):
    path = machine("g++", "make", "perl", verilator=NEW)
    monkeypatch.setenv("OPT_FAST", "-O3")
    assert find(path).environment["MAKEFLAGS"] == "OPT_FAST=-O3 OPT_GLOBAL=-O2"
    assert find(path, optimisation="-O1").environment["MAKEFLAGS"] == "OPT_FAST=-O1 OPT_GLOBAL=-O2"
    monkeypatch.setenv("OPT_GLOBAL", "-O0")
    assert find(path).environment["MAKEFLAGS"] == "OPT_FAST=-O3 OPT_GLOBAL=-O0"


def test_package_beats_old_system_verilator(machine):
    path = machine("g++", "make", "perl", verilator=OLD, package=(5, 48))
    tools = find(path)
    assert (tools.origin, tools.version_text) == ("package", "5.048")


def test_package_of_its_own_on_path_says_no_version(machine):
    path = machine("g++", "make", "perl", verilator=" rev vUNKNOWN-built2026", package=(5, 48))
    assert find(path).origin == "package"


def test_environment_of_the_package(machine, tmp_path):
    path = machine("c++", "make", "perl", package=(5, 48))
    environment = find(path).environment
    assert environment["VERILATOR_ROOT"] == str(tmp_path / "package")
    assert environment["PATH"].split(os.pathsep)[0] == str(tmp_path / "package" / "bin")
    assert environment["MAKEFLAGS"] == (
        "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_COROUTINES=-std=c++20\\ -fcoroutines "
        f"CXX={path}/c++ LINK={path}/c++ PYTHON3={sys.executable} OPT_FAST=-O1 OPT_GLOBAL=-O2")


@pytest.mark.parametrize(("programs", "options", "words"), [
    (("make", "perl"), {"package": (5, 48)}, ["C++ compiler", "apt install g++"]),
    (("g++", "perl"), {"package": (5, 48)}, ["GNU make", "apt install make"]),
    (("g++", "make"), {"package": (5, 48)}, ["perl", "apt install perl"]),
    (("g++", "make", "perl"), {}, ["Verilator not found", "5.036", "vitforge[sim]"]),
    (("g++", "make", "perl"), {"verilator": OLD}, ["Verilator 5.006", "5.036", "vitforge[sim]"]),
    (("g++", "make", "perl"), {"verilator": "?"}, ["unknown version", "vitforge[sim]"]),
    (("g++", "make", "perl"), {"package": (5, 35)}, ["5.036", "vitforge[sim]"]),
])
def test_missing_tool_is_one_line(machine, programs, options, words):
    with pytest.raises(ToolchainError) as error:
        find(machine(*programs, **options))
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_broken_verilator_is_of_unknown_version(machine):
    path = machine("g++", "make", "perl", verilator=NEW)
    (Path(path) / "verilator").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ToolchainError, match="unknown version"):
        find(path)


def test_process_environment_is_left_alone(machine):
    before = dict(os.environ)
    find(machine("g++", "make", "perl", package=(5, 48)))
    assert dict(os.environ) == before


@pytest.mark.rtl
@pytest.mark.slow
def test_found_toolchain_builds_a_program(tmp_path):
    """Coroutines, precompiled headers and the linker: what the environment is for.

    `make test` has vectors with the first, an accelerator with the second, and all with the third.
    """
    (tmp_path / "top.v").write_text(
        "module top;\n reg clk = 0; reg [7:0] q = 0;\n always #5 clk = !clk;\n"
        " always @(posedge clk) begin q <= q + 8'd1; if (q == 9) $finish; end\n"
        " final $display(\"q=%0d\", q);\nendmodule\n")
    tools = find(optimisation="-O0")
    # The library isn't shared with other models, so it isn't optimised either.
    flags = tools.environment["MAKEFLAGS"].replace("OPT_GLOBAL=-O2", "OPT_GLOBAL=-O0")
    subprocess.run([tools.verilator, "--binary", "--timing", "-Wno-fatal", "--output-split", "250",
                    "top.v"], cwd=tmp_path, check=True, capture_output=True,
                   env={**os.environ, **tools.environment, "MAKEFLAGS": flags})
    run = subprocess.run([tmp_path / "obj_dir" / "Vtop"], check=True, capture_output=True,
                         text=True)
    assert "q=10" in run.stdout
    assert list(tmp_path.glob("obj_dir/*.gch"))
    assert list(Path("build/objects").iterdir())


def test_object_cache_runs_other_commands_unchanged(tmp_path):
    assert objcache.main([str(tmp_path / "objects"), "sh", "-c", "exit 3"]) == 3
    assert not (tmp_path / "objects").exists()


def test_object_cache_keys(tmp_path):
    """Another argument, compiler or header is another object; the same ones are the same."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "verilated_config.h").write_text("")
    (include / "verilated.cpp").write_text("")
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho x >> "$0.runs"\nwhile [ "$1" != -o ]; do shift; done\n'
                        'echo "$@" > "$2"\n')
    compiler.chmod(0o755)
    runs = tmp_path / "compiler.runs"

    def build(option: str) -> int:
        output = tmp_path / "out.o"
        output.unlink(missing_ok=True)
        assert objcache.main([str(tmp_path / "objects"), str(compiler), option, "-c", "-o",
                              str(output), str(include / "verilated.cpp")]) == 0
        assert output.exists()
        return len(runs.read_text().splitlines())

    assert [build("-O1"), build("-O1"), build("-O2"), build("-O1")] == [1, 1, 2, 2]
    assert [build("-DVM_X=0"), build("-DVM_X=1"), build("-DVL_X=0"), build("-DVL_X=1")] \
        == [3, 3, 4, 5], "no file has the word VM_X"
    (include / "more").mkdir()
    (include / "more" / "verilated_x.h").write_text("#if VM_X")
    assert [build("-DVM_X=0"), build("-DVM_X=1"), build("-DVM_X=1")] == [6, 7, 7]
    runs.write_text("x\nx\n")
    (include / "verilated_config.h").write_text("changed")
    assert [build("-O1"), build("-O1")] == [3, 3]
    compiler.write_text(compiler.read_text() + "# changed\n")
    assert [build("-O1"), build("-O1")] == [4, 4]


def test_object_cache_compiles_once_for_two_at_a_time(tmp_path):
    """The second of two processes waits for the object of the first."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "verilated_config.h").write_text("")
    (tmp_path / "include" / "verilated.cpp").write_text("")
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho x >> "$0.runs"\nsleep 0.5\necho object > "$3"\n')
    compiler.chmod(0o755)
    both = [subprocess.Popen([sys.executable, "-I", "-S", objcache.__file__, tmp_path / "objects",
                              compiler, "-c", "-o", tmp_path / f"{number}.o",
                              tmp_path / "include" / "verilated.cpp"]) for number in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert {(tmp_path / f"{number}.o").read_text() for number in range(2)} == {"object\n"}
    assert (tmp_path / "compiler.runs").read_text() == "x\n"


def test_headers_are_compiled_once_for_all_models(tmp_path):
    """Other arguments or headers are another one; a compiler that makes none compiles as ever."""
    include, objects = tmp_path / "include", tmp_path / "objects"
    include.mkdir()
    for name in ("verilated_config.h", "verilated.h", "verilated_vpi.h"):
        (include / name).write_text("")
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho "$@" >> "$0.runs"\n'
                        'case "$*" in *-broken*c++-header*) exit 1;; esac\n'
                        'while [ "$1" != -o ]; do shift; done\necho "$1" > "$2"\n')
    compiler.chmod(0o755)

    def build(*options: str) -> list[str]:
        log = tmp_path / "compiler.runs"
        log.write_text("")
        assert objcache.main([str(objects), str(compiler), *options, "-MMD", f"-I{include}", "-c",
                              "-o", str(tmp_path / "model.o"), "model.cpp"]) == 0
        return log.read_text().splitlines()

    made, first = build("-O0")
    header, = objects.glob("*.h")
    assert header.read_text() == "#include <verilated.h>\n#include <verilated_vpi.h>\n"
    assert made.startswith(f"-O0 -I{include} -x c++-header -o ") and made.endswith(f" {header}")
    assert header.with_suffix(".h.gch").is_file()
    assert first == (f"-include {header} -O0 -MMD -I{include} -c -o {tmp_path / 'model.o'} "
                     "model.cpp")
    assert build("-O0") == [first]
    assert len(build("-O1")) == len(build("-DX=1")) == 2
    (include / "verilated.h").write_text("changed")
    assert len(build("-O0")) == 2
    assert build("-broken")[1].startswith("-broken -MMD")
    assert build("-O0", "-include", "own.h") == [
        f"-O0 -include own.h -MMD -I{include} -c -o {tmp_path / 'model.o'} model.cpp"]
