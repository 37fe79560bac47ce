# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.networks --every``: what becomes of the networks that people have.

Each gets random parameters, the smallest memories that hold it, and a process of its own, whose
largest memory is measured. An array has the lanes of `benchmarks.networks.SIZES`, or fewer if
patches are no multiple of them. What ran on the Verilog is in a record that
`benchmarks.every_verilog` writes.
"""

__all__ = ["NETWORKS", "Row", "fitted", "integers", "measured", "odd", "page", "shape", "suited"]

import dataclasses
import hashlib
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from benchmarks.every_record import Ran, verdict
from gen.compiler.compile import compile_network, supported
from gen.compiler.fit import fit, room
from gen.compiler.memory import bank_words
from golden.float import models
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import predict
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from golden.network.topology import Spec
from vitforge.base.markdown import table
from vitforge.spec.config import Config

#: Odd shapes of the table.
_ODD = 10
_BANKS = ("scratch", "residual", "stationary")


def _vit(dim: int, **more: object) -> VitSpec:
    return dataclasses.replace(
        VitSpec(image_size=224, patch_size=16, in_channels=3, classes=1000, dim=dim, depth=12,
                heads=dim // 64, mlp_hidden=4 * dim), **more)   # type: ignore[arg-type]


def odd(seed: int) -> VitSpec:
    """Draw a shape that nobody would choose, of three channels.

    Patches are 4 to 16 pixels wide, 7 if odd, and 3 to 12 side by side; 1 to 6 heads of 8 to 48
    channels, 1 to 4 blocks, MLPs 1 to 4 times as wide, 2 to 1,000 classes.
    """
    draw = random.Random(seed)
    patch, side = draw.choice((4, 6, 7, 8, 10, 12, 14, 16)), draw.randint(3, 12)
    heads = draw.randint(1, 6)
    dim = heads * draw.randint(8, 48)
    return VitSpec(image_size=side * patch, patch_size=patch, in_channels=3, dim=dim,
                   depth=draw.randint(1, 4), heads=heads,
                   mlp_hidden=max(1, round(dim * draw.uniform(1, 4))),
                   classes=draw.randint(2, 1000))


#: What has no name in `golden.float.models`.
_OTHERS: Mapping[str, Spec] = {
    **{f"deit_{size}_distilled_patch16_224": _vit(dim, registers=1, pool="both")
       for size, dim in (("tiny", 192), ("small", 384), ("base", 768))},
    "vit_small_patch14_reg4_dinov2": _vit(384, image_size=518, patch_size=14, registers=4),
    **{f"vit_base_patch{patch}_clip_224": _vit(768, patch_size=patch, norm_pre=True, norm_eps=1e-5,
                                               classes=512) for patch in (32, 16)},
    **{f"odd_{number}": odd(number) for number in range(1, _ODD + 1)},
}
#: The networks of the table.
NETWORKS = (
    "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224",
    "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224",
    "deit_tiny_distilled_patch16_224", "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224", "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224", "swin_base_patch4_window7_224", "vit_base_patch16_384",
    "vit_small_patch14_reg4_dinov2", "vit_base_patch32_clip_224", "vit_base_patch16_clip_224",
    *(f"odd_{number}" for number in range(1, _ODD + 1)))


def shape(name: str) -> Spec:
    """Return the shape of a network of the table, or of any with a name.

    Raises
    ------
    ValueError
        If there is none.
    """
    return _OTHERS[name] if name in _OTHERS else models.lookup(name).spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A network on an array.

    Attributes
    ----------
    key
        Of shape and array: rows with the same one are of the same program.
    refusal
        Why it does not compile; then all figures are 0.
    cycles
        By the exact model.
    scratchpad, memory
        Bytes of the three banks; and of program, image and logits.
    seconds
        Of a processor, for `compile_network`.
    peak
        Bytes of memory that the process took at most: calibration and both arrays.
    """

    network: str
    array: str
    key: str
    lanes: int = 0
    refusal: str = ""
    cycles: int = 0
    utilisation: float = 0.0
    scratchpad: int = 0
    memory: int = 0
    seconds: float = 0.0
    peak: int = 0


def suited(spec: Spec, config: Config) -> Config:
    """Return an array with the most lanes, up to those that it has, that can place the patches.

    Its rows are as long as the network's.
    """
    most = room(spec, config)
    for lanes in (config.lanes >> halved for halved in range(config.lanes.bit_length())):
        try:
            supported(spec, made := room(spec, dataclasses.replace(config, lanes=lanes)))
            return made
        except ValueError:
            continue
    supported(spec, most)   # says what is in the way
    return most


def integers(spec: Spec, config: Config, seed: int = 0) -> tuple[Network, torch.Tensor]:
    """Return a network of random parameters, and the picture that calibrated it."""
    model = Swin(spec) if isinstance(spec, SwinSpec) else Vit(spec)
    size = (1, spec.in_channels, spec.image_size, spec.image_size)
    noise = torch.randint(256, size, generator=torch.Generator().manual_seed(seed))
    pictures = noise.to(torch.uint8)
    return calibrate(model.initialize(seed).eval(), pictures, config), pictures


def fitted(network: Network, config: Config) -> Network:
    """Return a network's integers for the smallest memories of another array."""
    network = dataclasses.replace(network, config=config)
    return dataclasses.replace(network, config=fit(network))


def _measured(name: str, configs: Sequence[Config]) -> list[Row]:
    torch.set_num_threads(1)
    spec = shape(name)
    found: list[Row] = []
    network: Network | None = None
    for config in configs:
        row = Row(network=name, array=f"{config.rows}x{config.cols}", key=_key(spec, config))
        try:
            config = suited(spec, config)
            if network is None:
                network = integers(spec, config)[0]
            mine = fitted(network, config)
            start = time.process_time()
            compiled = compile_network(mine)
            seconds = time.process_time() - start
        except ValueError as error:
            found.append(dataclasses.replace(row, refusal=str(error)))
            continue
        cycles = predict(compiled.program, mine.config).cycles
        found.append(dataclasses.replace(
            row, cycles=cycles, lanes=config.lanes,
            utilisation=mine.products / cycles / config.rows / config.cols,
            scratchpad=sum(bank_words(bank, mine.config) for bank in _BANKS) * config.rows,
            memory=len(compiled.program) + compiled.input_bytes + compiled.output_bytes,
            seconds=seconds))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return [dataclasses.replace(row, peak=peak) for row in found]


def _key(spec: Spec, config: Config) -> str:
    return hashlib.sha256(f"{spec} {config.hash()}".encode()).hexdigest()[:12]


def measured(names: Sequence[str], configs: Sequence[Config], before: Sequence[Row] = (),
             ) -> Iterator[list[Row]]:
    """Compile networks, one after the other, each in a process of its own; a shape once.

    Parameters
    ----------
    before
        Rows of an earlier run, which are taken as they are.

    Yields
    ------
    list of Row
        One for each array.
    """
    known = {row.key: row for row in before}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in names:
            keys = [_key(shape(name), config) for config in configs]
            if not known.keys() >= set(keys):
                known |= {row.key: row for row in pool.apply(_measured, (name, tuple(configs)))}
            yield [dataclasses.replace(known[key], network=name) for key in keys]


def _bytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 10 * 2**20 else f"{size / 2**10:,.0f} KiB"


def _cells(rows: Sequence[Row], value: Callable[[Row], str]) -> str:
    """Return what the arrays have, once if it is the same."""
    found = [value(row) if not row.refusal else "-" for row in rows]
    return found[0] if len(set(found)) == 1 else " / ".join(found)


def _line(rows: Sequence[Row], record: Sequence[Ran]) -> tuple[str, ...]:
    name, refusals = rows[0].network, [row for row in rows if row.refusal]
    compiles = "yes" if not refusals else "; ".join(
        f"not on {row.array}: {row.refusal}" for row in refusals)
    return (f"`{name}`", compiles, _cells(rows, lambda row: str(row.lanes)),
            *(cell for row in rows for cell in (
                ("-", "-") if row.refusal else (f"{row.cycles:,}", f"{row.utilisation:.2%}"))),
            _cells(rows, lambda row: _bytes(row.scratchpad)),
            _cells(rows, lambda row: _bytes(row.memory)),
            _cells(rows, lambda row: f"{row.seconds:.1f}"), f"{rows[0].peak / 1e9:.2f}",
            verdict(name, shape(name), record, shape))


def page(rows: Sequence[Sequence[Row]], record: Sequence[Ran], command: str) -> str:
    """Return the table as Markdown, with the shapes that were drawn and what ran."""
    names = [one[0].network for one in rows]
    parts = [f"`{command}`:\n", table(
        ["network", "compiles", "lanes", *(text for row in rows[0] for text in (
            f"cycles, {row.array}", "array used")), "scratchpad", "memory", "compiled in s",
         "GB at most", "on the Verilog"], (_line(one, record) for one in rows))]
    drawn = [(name, spec) for name in names
             if name.startswith("odd_") and isinstance(spec := shape(name), VitSpec)]
    if drawn:
        parts += ["The shapes that were drawn:\n", table(
            ["network", "pixels", "patch", "blocks", "channels", "heads", "MLP", "classes"],
            ((f"`{name}`", spec.image_size, spec.patch_size, spec.depth, spec.dim, spec.heads,
              spec.mlp_hidden, spec.classes) for name, spec in drawn))]
    ran = [item for item in record if item.network in names]
    if ran:
        parts += ["What ran, every byte and every counter equal to the golden model's:\n", table(
            ["network", "part", "array", "cycles", "command"],
            ((f"`{item.network}`", item.part, item.array, f"{item.cycles:,}" if item.cycles else "",
              f"`{item.command}`") for item in ran))]
    return "\n".join(parts)
