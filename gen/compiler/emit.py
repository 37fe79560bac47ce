# SPDX-License-Identifier: Apache-2.0
"""A program with its inputs as what firmware links: C arrays, an ELF section, a LiteX memory file.

All of them define the same symbols, which ``network.h`` declares::

    network_program   the program, aligned for the accelerator, in the section ``.vitforge``
    network_inputs    the input buffers, one after the other, in the same section
    network_logits    what the golden model says of them, little-endian
    network_output    room for one output buffer, in the section ``.vitforge_output``

so firmware does not care which of them it was built from.
"""

__all__ = ["EMITTED", "Bundle", "emit"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vitforge.spec.config import Config

#: Buffers begin at multiples of this: no burst reaches into a page of another.
PAGE = 4096
_SPDX = "SPDX-License-Identifier: Apache-2.0"


@dataclass(frozen=True)
class Bundle:
    """What firmware needs of a compiled network.

    Attributes
    ----------
    program
        Bytes of the program, a multiple of 64.
    inputs
        Input buffers, all of one size, a multiple of 64.
    output_bytes
        Size of the output buffer.
    logits
        Of the golden model, a row an input.
    """

    config: Config
    program: bytes
    inputs: Sequence[bytes]
    output_bytes: int
    logits: Sequence[Sequence[int]]


def header(bundle: Bundle) -> str:
    """Return ``network.h``."""
    sizes = {
        "CONFIG_HASH": f"0x{bundle.config.hash()}u",
        "PROGRAM_BYTES": f"{len(bundle.program)}u", "INPUTS": f"{len(bundle.inputs)}u",
        "INPUT_BYTES": f"{len(bundle.inputs[0])}u", "OUTPUT_BYTES": f"{bundle.output_bytes}u",
        "CLASSES": f"{len(bundle.logits[0])}u",
    }
    macros = "".join(f"#define NETWORK_{name} {value}\n" for name, value in sizes.items())
    return (f"/* {_SPDX} */\n"
            f"/* A network for configuration {bundle.config.name}. Generated: do not edit. */\n"
            "#ifndef VITFORGE_NETWORK_H\n#define VITFORGE_NETWORK_H\n\n#include <stdint.h>\n\n"
            f"{macros}\n"
            "extern const uint8_t network_program[NETWORK_PROGRAM_BYTES];\n"
            "extern const uint8_t network_inputs[NETWORK_INPUTS][NETWORK_INPUT_BYTES];\n"
            "extern const int32_t network_logits[NETWORK_INPUTS][NETWORK_CLASSES];\n"
            "extern uint8_t network_output[NETWORK_OUTPUT_BYTES];\n\n#endif\n")


def _rows(data: bytes, indent: str = "    ") -> Iterator[str]:
    for place in range(0, len(data), 16):
        yield f"{indent}{','.join(map(str, data[place:place + 16]))},\n"


def _c(bundle: Bundle) -> dict[str, bytes]:
    section = f'__attribute__((section(".vitforge"), aligned({PAGE})))'
    inputs = "".join("    {\n" + "".join(_rows(data, "        ")) + "    },\n"
                     for data in bundle.inputs)
    # The most negative number is no literal of C.
    logits = "".join("    {" + ", ".join(f"{value + 1} - 1" if value == -1 << 31 else str(value)
                                         for value in row) + "},\n" for row in bundle.logits)
    text = (f"/* {_SPDX} */\n#include \"network.h\"\n\n"
            f"{section}\nconst uint8_t network_program[NETWORK_PROGRAM_BYTES] = {{\n"
            f"{''.join(_rows(bundle.program))}}};\n\n"
            f"{section}\nconst uint8_t network_inputs[NETWORK_INPUTS][NETWORK_INPUT_BYTES] = {{\n"
            f"{inputs}}};\n\n"
            "const int32_t network_logits[NETWORK_INPUTS][NETWORK_CLASSES] = {\n"
            f"{logits}}};\n\n"
            f'__attribute__((section(".vitforge_output"), aligned({PAGE})))\n'
            "uint8_t network_output[NETWORK_OUTPUT_BYTES];\n")
    return {"network.c": text.encode()}


def _elf(bundle: Bundle) -> dict[str, bytes]:
    logits = b"".join(value.to_bytes(4, "little", signed=True)
                      for row in bundle.logits for value in row)
    parts = {"program": bundle.program, "inputs": b"".join(bundle.inputs), "logits": logits}
    text = f"/* {_SPDX} */\n/* Assemble it where the .bin files are, or with -I. */\n"
    for name, data in parts.items():
        section = '.rodata,"a"' if name == "logits" else '.vitforge,"a"'
        text += (f"\n    .section {section}\n    .balign {4 if name == 'logits' else PAGE}\n"
                 f"    .global network_{name}\n    .type network_{name}, %object\n"
                 f"    .size network_{name}, {len(data)}\n"
                 f'network_{name}:\n    .incbin "network_{name}.bin"\n')
    text += (f'\n    .section .vitforge_output,"aw",%nobits\n    .balign {PAGE}\n'
             "    .global network_output\n    .type network_output, %object\n"
             f"    .size network_output, {bundle.output_bytes}\n"
             f"network_output:\n    .zero {bundle.output_bytes}\n"
             '\n    .section .note.GNU-stack,"",%progbits\n')
    return {"network.S": text.encode(),
            **{f"network_{name}.bin": data for name, data in parts.items()}}


def _litex(bundle: Bundle) -> dict[str, bytes]:
    """Words of 32 bits in hexadecimal, one a line, as LiteX's memories are filled."""
    data = bytearray()
    for part in (bundle.program, *bundle.inputs):
        data += bytes(-len(data) % PAGE) + part
    data += bytes(-len(data) % 4)
    words = "".join(f"{int.from_bytes(data[place:place + 4], 'little'):08x}\n"
                    for place in range(0, len(data), 4))
    return {"network.init": words.encode()}


#: Kinds by name: their files beside ``network.h``.
EMITTED: dict[str, Callable[[Bundle], dict[str, bytes]]] = {"c": _c, "elf": _elf, "litex": _litex}


def emit(bundle: Bundle, kinds: Sequence[str]) -> dict[str, bytes]:
    """Return the files of these kinds, by their names."""
    files = {"network.h": header(bundle).encode()}
    for kind in kinds:
        files |= EMITTED[kind](bundle)
    return files
