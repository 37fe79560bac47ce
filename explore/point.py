# SPDX-License-Identifier: Apache-2.0
"""One point of a space: a configuration, what runs on it, and what is to be measured."""

__all__ = ["DESIGNS", "MEASURES", "OPTIONS", "PARTS", "Point", "repeat", "toml"]

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from explore.store import key
from gen.compiler.options import MNIST
from golden.commands.methods import ABOUT
from golden.commands.quantize_options import RECONSTRUCTIONS
from hw import units
from vitforge.spec.config import Config

#: Parts of the accelerator that are no unit of their own: module and class.
PARTS = {"operand": ("hw.operand.path", "OperandPath")}
#: What can be explored: what can be generated, and a network alone, of which no gate is made.
DESIGNS = (*units.DESIGNS, *PARTS, "network")
#: What can be measured, in the order in which it is done.
MEASURES = ("exact", "ecp5", "ecp5-lut", "xilinx", "gates", "place", "cycles", "accuracy", "energy")
#: Axes beside the fields of a configuration: what each may be, the default first, and what it is.
OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "weights": ((0, *range(2, 9)), "weights of the network, 2 to 8 bits; 0 is weight_bits"),
    "activations": (
        (0, *range(3, 9)),
        "uniform codes of activations, 3 to 8 bits; 0 is a method's own width, or 8"),
    "stream_bits": (
        (0, *range(3, 9)),
        "a method's residual stream and scores, 3 to 8 bits, if it has codes; 0 is activations"),
    "reconstruct": (("", *RECONSTRUCTIONS),
                    "how a method's blocks are reconstructed; empty is the method's own way"),
    "stream": (("ptf", "o-2sf"), "codes of the residual stream: ptf (FQ-ViT), o-2sf (TSPTQ-ViT)"),
    "method": (("", *ABOUT),
               "who decides the formats: a method of golden.quantize, or golden.network.calibrate"),
    "gelu_codes": (("two-scale", "uniform"), "codes of GeLU's result: two-scale or uniform"),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """Everything that decides what a point's measurements give.

    Attributes
    ----------
    space, study
        Where it comes from; no part of its identity.
    design
        One of `DESIGNS`.
    values
        Fields of the configuration, all of them, even where they contradict each other.
    options
        Of the network: the keys of `OPTIONS`.
    network
        Whose cycles, bytes and energy are found; empty is none.
    measure
        Of `MEASURES`.
    seeds, frequency
        Of the placements, and the rate in MHz that they aim at.
    widths
        Weight widths of single layers, by name.
    pictures
        `explore.pictures.Pictures` as a mapping; empty is the shipped digits. What they are belongs
        to the identity, not where.
    fit
        Whether the machine's memories are the smallest that hold what a method makes of the
        network.
    """

    space: str = ""
    study: str = ""
    design: str
    values: Mapping[str, int | str]
    options: Mapping[str, Any] = field(default_factory=dict)
    network: str = ""
    measure: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    frequency: float = 150.0
    widths: Mapping[str, int] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    fit: bool = False

    def config(self) -> Config:
        """Return the configuration, named after the point.

        Raises
        ------
        ConfigError
            If the values contradict each other.
        """
        values: Any = {**self.values, "name": f"{self.design}-{self.id}"}
        return Config(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self) | {"values": dict(self.values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Point":
        """Undo `to_dict`."""
        return cls(**{**values, "measure": tuple(values["measure"]),
                      "seeds": tuple(values["seeds"])})

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that name what is measured, and on what."""
        values = self.to_dict()
        for name in ("space", "study"):
            del values[name]
        values["pictures"] = values["pictures"].get("key", "")
        values["values"] = {k: v for k, v in values["values"].items() if k != "name"}
        return key(values)[:12]


def repeat(task: Mapping[str, Any], file: object) -> list[str]:
    """Return lines that say what a configuration doesn't, and the commands that repeat a point.

    Parameters
    ----------
    task
        `Point.to_dict` of it.
    file
        Where its configuration is.
    """
    lines, options, network = [], task["options"], task["network"]
    weights = options.get("weights") or task["values"]["weight_bits"]
    if network or "accuracy" in task["measure"]:
        lines.append(f"network {network or 'mnist'}: weights of {weights} bits, "
                     f"stream {options.get('stream', 'ptf')}, "
                     f"GeLU {options.get('gelu_codes', 'two-scale')}, formats by "
                     f"{options.get('method') or 'golden.network.calibrate'}")
        lines += [f"weights of {layer}: {bits} bits" for layer, bits in task["widths"].items()]
    if task["design"] in units.DESIGNS:
        lines.append(f"python -m gen.verilog --unit {task['design']} --config {file} -o FOLDER")
    # What `gen.program` takes of the configuration.
    gelu = "two-scale" if "two-scale" in str(task["values"]["formats"]) else "uniform"
    if network and not task["widths"] and options.get("gelu_codes", gelu) in (gelu, "two-scale"):
        # Of a network without parameters of its own, cycles and bytes are those of random ones.
        seed = "" if network == MNIST else " --random 1"
        narrow = f" --activations {bits}" if (bits := options.get("activations")) else ""
        lines.append(f"python -m gen.program {network} --config {file} --weights {weights}{narrow}"
                     f"{seed} -o FOLDER")
    return lines


def toml(values: Mapping[str, int | str], comment: str) -> str:
    """Return a configuration as a file for `vitforge.spec.config.load`."""
    lines = [f"# {line}" for line in ("SPDX-License-Identifier: Apache-2.0", *comment.split("\n"))]
    for name, value in values.items():
        lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines) + "\n"


def component(design: str) -> tuple[str, str]:
    """Return module and class of what is built for a design: one of the gateware, or of `PARTS`."""
    return {**units.DESIGNS, **PARTS}[design]
