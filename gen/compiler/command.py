# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.program``: a quantized network as a program and a memory image."""

__all__ = ["Image", "bundle", "compile_network", "main", "memory_image"]

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen.compiler import arguments as program_arguments
from gen.compiler.compile import Compiled, compile_network
from gen.compiler.emit import PAGE, Bundle, emit
from gen.compiler.fit import fit, room, toml
from gen.compiler.listing import listing
from gen.compiler.options import CONFIG, command_line
from golden.machine.execute import execute
from golden.machine.program import output_bytes
from golden.network import inference
from golden.network.inference import image_codes
from golden.network.integers import Network
from vitforge.base.cli import replace_folder, run_command
from vitforge.spec.instruction import LINE


@dataclass(frozen=True)
class Image:
    """A memory with all three buffers: their addresses and sizes, and its bytes."""

    buffers: dict[str, tuple[int, int]]
    data: bytes

    @property
    def program(self) -> bytes:
        """Bytes of the program."""
        return self._of("program")

    @property
    def input(self) -> bytes:
        """Bytes of the input buffer."""
        return self._of("input")

    def _of(self, name: str) -> bytes:
        address, size = self.buffers[name]
        return self.data[address:address + size]


def input_buffer(codes: Tensor, compiled: Compiled) -> bytes:
    """Return an image ``[1, channels, H, W]`` as the input buffer has it: raster, by channel."""
    raster = image_codes(codes, compiled.spec).to(torch.uint8).numpy().tobytes()
    return raster.ljust(compiled.input_bytes, b"\0")


def memory_image(compiled: Compiled, codes: Tensor, start: int = 0) -> Image:
    """Lay out program, input and output from the address `start` on.

    Parameters
    ----------
    codes
        The image, uint8 ``[1, H, W]`` or ``[1, channels, H, W]``.
    """
    parts = {"program": compiled.program, "input": input_buffer(codes, compiled),
             "output": bytes(compiled.output_bytes)}
    buffers, data = {}, bytearray(start)
    for name, part in parts.items():
        data += bytes(-len(data) % PAGE)
        buffers[name] = len(data), len(part)
        data += part
    return Image(buffers, bytes(data))


def bundle(compiled: Compiled, network: Network, inputs: Tensor) -> Bundle:
    """Return what firmware needs to run inputs, uint8 ``[N, ...]`` as in `memory_image`."""
    return Bundle(compiled.config, compiled.program,
                  [input_buffer(codes[None], compiled) for codes in inputs],
                  compiled.output_bytes, inference.run(network, inputs).tolist())


def describe(compiled: Compiled, network: Network, image: Image) -> str:
    """Return the text of ``memory.json``."""
    config = compiled.config
    line = output_bytes(1, config)
    width = config.cols
    offsets = [c // width * line + c % width * 4 for c in range(compiled.spec.classes)]
    return json.dumps({
        "config": config.name, "config_hash": config.hash(),
        "buffers": {name: {"address": address, "bytes": size}
                    for name, (address, size) in image.buffers.items()},
        "classes": compiled.spec.classes, "logit_scale": network.logit_scale,
        "logit_offsets": offsets, "line": LINE,
    }, indent=1) + "\n"


def host_files(compiled: Compiled, image: Image) -> dict[str, str]:
    """Return the files of a run for `sim/accelerator_host.v`: memory, result, and plusargs.

    ``fusesoc.args`` are the plusargs as FuseSoC's target ``sim`` takes them.
    """
    config = compiled.config
    wanted = execute(image.program, image.input, config, compiled.output_bytes).output
    step = config.axi_bits // 8

    def beats(data: bytes) -> str:
        data += bytes(-len(data) % step)
        return "".join(f"{data[place:place + step][::-1].hex()}\n"
                       for place in range(0, len(data), step))

    plusargs = [f"+{name}_{part}={value}" for name, buffer in image.buffers.items()
                for part, value in zip(("address", "bytes"), buffer, strict=True)]
    arguments = " ".join(["+memory=memory.hex", "+expected=expected.hex", *plusargs]) + "\n"
    return {"memory.hex": beats(image.data), "expected.hex": beats(wanted),
            "host.args": arguments, "fusesoc.args": arguments.replace("+", "--")}


def _write(args: argparse.Namespace) -> int:
    network = program_arguments.network(args, program_arguments.configuration(args),
                                        *([room] if args.fit else []))
    if args.fit:
        network = dataclasses.replace(network, config=fit(network))
    compiled = compile_network(network)
    inputs = program_arguments.pictures(args, compiled.spec, args.count)
    image = memory_image(compiled, inputs[:1])
    with replace_folder(args.output) as folder:
        (folder / "program.bin").write_bytes(compiled.program)
        (folder / "memory.bin").write_bytes(image.data)
        (folder / "memory.json").write_text(describe(compiled, network, image), encoding="ascii")
        (folder / "listing.txt").write_text(listing(compiled), encoding="ascii")
        if args.fit:
            (folder / CONFIG).write_text(toml(compiled.config), encoding="ascii")
        for name, text in host_files(compiled, image).items():
            (folder / name).write_text(text, encoding="ascii")
        if args.emit:
            for name, data in emit(bundle(compiled, network, inputs), args.emit).items():
                (folder / name).write_bytes(data)
    if args.fit:
        print(f"configuration: {args.output / CONFIG}")
    print(f"{len(compiled.program):,} bytes, {len(compiled.steps)} passes: {args.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; exit code 2 with one line for bad input."""
    return run_command(_write, command_line(), argv)
