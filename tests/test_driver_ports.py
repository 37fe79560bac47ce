# SPDX-License-Identifier: Apache-2.0
"""The ports of the C driver, compiled and run on an array in place of the registers."""

import subprocess

import pytest

from gen.registers import header
from sim.testing.driver import DRIVER, FLAGS
from vitforge.spec.config import load

CONFIG = load("tiny")
#: Stands in front of every program: the registers as the driver expects them.
BEGIN = """\
#include <string.h>
#include "vitforge.h"
static uint32_t registers[VITFORGE_ADDRESS_SPACE_BYTES / 4];
static struct vitforge device;
static void power_on(void)
{
    registers[VITFORGE_ID_OFFSET / 4] = VITFORGE_ID_RESET;
    registers[VITFORGE_VERSION_OFFSET / 4] = VITFORGE_VERSION_RESET;
    registers[VITFORGE_CONFIG_HASH_OFFSET / 4] = VITFORGE_CONFIG_HASH_RESET;
    registers[VITFORGE_CAPABILITY_OFFSET / 4] = VITFORGE_CAPABILITY_RESET;
}
"""


def run(folder, program, *options):
    """Compile driver and program with warnings as errors, and return the program's exit code."""
    (folder / "vitforge_registers.h").write_text(header(CONFIG))
    (folder / "main.c").write_text(BEGIN + program)
    subprocess.run(["gcc", *FLAGS, "-O2", "-I", str(DRIVER), "-I", str(folder), *options, "-o",
                    str(folder / "main"), str(DRIVER / "vitforge.c"), str(folder / "main.c")],
                   check=True, timeout=60)
    return subprocess.run([folder / "main"], timeout=60, check=False).returncode


def test_default_port_is_plain_memory(tmp_path):
    assert run(tmp_path, """
int main(void)
{
    struct vitforge_buffers buffers = {64, 128, 192, 256, 320, 384};
    static const unsigned char output[384] = {1, 2, 3, 4, 0xfe, 0xff, 0xff, 0xff};
    int32_t logits[2];
    if (vitforge_probe(&device, registers, 0, NULL) != VITFORGE_NO_DEVICE)
        return 1;
    power_on();
    if (vitforge_probe(&device, registers, VITFORGE_CONFIG_HASH_RESET, NULL) != VITFORGE_OK)
        return 2;
    if (vitforge_load(&device, &buffers) != VITFORGE_OK ||
        registers[VITFORGE_OUTPUT_BYTES_OFFSET / 4] != 384)
        return 3;
    if (vitforge_start(&device) != VITFORGE_OK ||
        registers[VITFORGE_CONTROL_OFFSET / 4] != VITFORGE_CONTROL_START_MASK)
        return 4;
    registers[VITFORGE_STATUS_OFFSET / 4] = VITFORGE_STATUS_DONE_MASK;
    if (vitforge_read_logits(&device, output, logits, 2) != VITFORGE_OK ||
        logits[0] != 0x04030201 || logits[1] != -2)
        return 5;
    registers[VITFORGE_CAPABILITY_OFFSET / 4] = 0;
    if (vitforge_read_logits(&device, output, logits, 2) != VITFORGE_INVALID)
        return 6;
    return 0;
}
""") == 0


def test_the_cache_hook_is_told_the_whole_output_buffer(tmp_path):
    (tmp_path / "port.h").write_text("""
#include <stddef.h>
void told(const volatile void *output, size_t bytes);
#define VITFORGE_BEFORE_RESULTS(output, bytes) told((output), (bytes))
""")
    assert run(tmp_path, """
static unsigned char output[192];
static size_t hooks, size;
void told(const volatile void *where, size_t bytes);
void told(const volatile void *where, size_t bytes)
{
    hooks += where == output;
    size = bytes;
    output[128 + 4] = 9; /* logit 9 is seen from now on */
}
int main(void)
{
    struct vitforge_buffers buffers = {64, 128, 192, 256, 4096, sizeof output};
    int32_t logits[10];
    power_on();
    if (vitforge_probe(&device, registers, 0, NULL) || vitforge_load(&device, &buffers))
        return 1;
    registers[VITFORGE_STATUS_OFFSET / 4] = VITFORGE_STATUS_DONE_MASK;
    if (vitforge_read_logits(&device, output, logits, 13) != VITFORGE_INVALID || hooks != 0)
        return 2;
    if (vitforge_read_logits(&device, output, logits, 10) != VITFORGE_OK)
        return 3;
    return hooks == 1 && size == sizeof output && logits[9] == 9 ? 0 : 4;
}
""", '-DVITFORGE_PORT="port.h"') == 0


@pytest.mark.parametrize(("soc", "flushes"), [
    ("#define CONFIG_L2_SIZE 8192\n", "dl"), ("", "d")])
def test_litex_port_flushes_the_data_cache_before_the_l2_cache(tmp_path, soc, flushes):
    """Flushes come before the start and before the first result is read, in their order."""
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "soc.h").write_text(soc)
    (tmp_path / "system.h").write_text("""
void flush_cpu_dcache(void);
void flush_l2_cache(void);
""")
    (tmp_path / "write32.h").write_text("""
#include <stdint.h>
void write32(volatile uint32_t *place, uint32_t offset, uint32_t value);
#define VITFORGE_WRITE32(place, offset, value) write32((place), (offset), (value))
""")
    l2_cache = "void flush_l2_cache(void) { note('l'); }" if soc else "/* LiteX has none */"
    assert run(tmp_path, f"""
#include <system.h>
static unsigned char output[192];
static char calls[16];
static size_t count;
static void note(char what)
{{
    calls[count++] = what;
    output[0] = (unsigned char)count; /* what memory holds shows after the last flush */
}}
void flush_cpu_dcache(void) {{ note('d'); }}
{l2_cache}
void write32(volatile uint32_t *place, uint32_t offset, uint32_t value)
{{
    place[offset / 4] = value;
    if (offset == VITFORGE_CONTROL_OFFSET)
        note('s');
}}
int main(void)
{{
    struct vitforge_buffers buffers = {{64, 128, 192, 256, 4096, sizeof output}};
    int32_t logits[10];
    power_on();
    if (vitforge_probe(&device, registers, 0, NULL) || vitforge_load(&device, &buffers) || count)
        return 1;
    if (vitforge_start(&device) != VITFORGE_OK || strcmp(calls, "{flushes}s") != 0)
        return 2;
    registers[VITFORGE_STATUS_OFFSET / 4] = VITFORGE_STATUS_DONE_MASK;
    if (vitforge_read_logits(&device, output, logits, 10) != VITFORGE_OK)
        return 3;
    return strcmp(calls, "{flushes}s{flushes}") == 0 && logits[0] == (int32_t)count ? 0 : 4;
}}
""", '-DVITFORGE_PORT="port_litex.h"', "-include", str(tmp_path / "write32.h")) == 0
