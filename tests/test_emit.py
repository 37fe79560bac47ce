# SPDX-License-Identifier: Apache-2.0
"""Programs as firmware takes them: a compiler links them, and finds every byte where it was."""

import itertools
import json
import subprocess
from pathlib import Path

import pytest

from gen.compiler.command import main
from gen.compiler.emit import EMITTED, PAGE, Bundle, emit
from golden.machine.execute import execute
from golden.machine.program import read_logits
from vitforge.spec.config import load

CONFIG = load("tiny")
BUNDLE = Bundle(CONFIG, bytes(range(256)) * 17, [bytes([number]) * 832 for number in (7, 250)],
                192, [[-1 << 31, 0, (1 << 31) - 1], [1, -2, 3]])
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
#: Prints every byte of the buffers, after it has looked at their places.
SHOW = f"""\
#include <stdio.h>
#include "network.h"
int main(void)
{{
    if ((uintptr_t)network_program % {PAGE} || (uintptr_t)network_inputs % {PAGE} ||
        (uintptr_t)network_output % {PAGE} || sizeof network_output != NETWORK_OUTPUT_BYTES)
        return 1;
    network_output[NETWORK_OUTPUT_BYTES - 1] = 1;
    fwrite(network_program, 1, NETWORK_PROGRAM_BYTES, stdout);
    fwrite(network_inputs, 1, sizeof network_inputs, stdout);
    for (unsigned i = 0; i < NETWORK_INPUTS; i++)
        for (unsigned k = 0; k < NETWORK_CLASSES; k++)
            printf(" %ld", (long)network_logits[i][k]);
    printf(" %lx\\n", (unsigned long)NETWORK_CONFIG_HASH);
    return 0;
}}
"""


def written(folder: Path, kind: str) -> None:
    for name, data in emit(BUNDLE, [kind]).items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(("kind", "source"), [("c", "network.c"), ("elf", "network.S")])
def test_a_program_of_them_has_every_byte_and_logit(tmp_path: Path, kind: str,
                                                    source: str) -> None:
    written(tmp_path, kind)
    (tmp_path / "show.c").write_text(SHOW)
    subprocess.run(["gcc", *FLAGS, "show.c", source, "-o", "show"], cwd=tmp_path, check=True,
                   timeout=60)
    shown = subprocess.run([tmp_path / "show"], check=True, timeout=60, capture_output=True).stdout
    logits = " ".join(str(value) for row in BUNDLE.logits for value in row)
    assert shown == (BUNDLE.program + b"".join(BUNDLE.inputs)
                     + f" {logits} {int(CONFIG.hash(), 16):x}\n".encode())
    sections = subprocess.run(["objdump", "-h", tmp_path / "show"], check=True, timeout=60,
                              capture_output=True, text=True).stdout
    assert " .vitforge " in sections and " .vitforge_output " in sections


def test_a_litex_memory_has_pages_of_words(tmp_path: Path) -> None:
    written(tmp_path, "litex")
    data = b"".join(int(line, 16).to_bytes(4, "little")
                    for line in (tmp_path / "network.init").read_text().splitlines())
    program = BUNDLE.program.ljust(2 * PAGE, b"\0")
    assert data == program + BUNDLE.inputs[0].ljust(PAGE, b"\0") + BUNDLE.inputs[1]


def test_the_command_writes_what_was_asked_for(tmp_path: Path) -> None:
    out, config = tmp_path / "out", load("edge8")
    assert main(["mnist", "--config", "edge8", "--emit", *EMITTED, "--count", "2", "-o",
                 str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names >= {"network.h", "network.c", "network.S", "network.init", "network_program.bin",
                     "network_inputs.bin", "network_logits.bin", "program.bin"}
    program = (out / "network_program.bin").read_bytes()
    assert program == (out / "program.bin").read_bytes()
    size = json.loads((out / "memory.json").read_text())["buffers"]["output"]["bytes"]
    inputs, logits = ((out / f"network_{name}.bin").read_bytes() for name in ("inputs", "logits"))
    half = len(inputs) // 2
    for number in range(2):
        run = execute(program, inputs[number * half:][:half], config, size)
        wanted = b"".join(int(value).to_bytes(4, "little", signed=True)
                          for value in read_logits(run.output, 10, config))
        assert logits[40 * number:40 * number + 40] == wanted
    assert main(["mnist", "--config", "edge8", "-o", str(out)]) == 0
    assert not {path.name for path in out.iterdir()} & {"network.h", "network.c", "network.S"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--emit", "pascal"], "invalid choice: 'pascal'"),
    (["--emit", "c", "--count", "0"], "the number of inputs must be at least 1"),
])
def test_bad_input_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 arguments: list[str], message: str) -> None:
    assert main(["mnist", "--config", "tiny", *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_kinds_go_together(tmp_path: Path) -> None:
    for kinds in itertools.permutations(EMITTED, 2):
        files = emit(BUNDLE, kinds)
        assert files == emit(BUNDLE, kinds[:1]) | emit(BUNDLE, kinds[1:])
