# SPDX-License-Identifier: Apache-2.0
"""The FuseSoC core file of a generated folder, in the format CAPI2 and with its flow API.

Targets: ``default`` brings the files into another design; ``lint`` is Verilator's lint of the first
unit, and ``lint_<unit>`` that of each; ``sim`` runs a program of ``python -m gen.program`` on the
accelerator, and fails if its output is not the expected one.
"""

__all__ = ["core_file"]

import json
from collections.abc import Sequence
from typing import Any

from vitforge.spec.config import Config

#: Runtime options of the bench that every run needs; their values are in ``fusesoc.args``.
_RUN = {
    "memory": ("file", "contents of the memory"),
    "expected": ("file", "what the output buffer must hold"),
    **{f"{name}_{part}": ("int", f"{what} of the {name} buffer")
       for name in ("program", "input", "output")
       for part, what in (("address", "address"), ("bytes", "size in bytes"))},
}
_CHOICES = {
    "limit": ("int", "cycles after which the host gives up"),
    "latency": ("int", "cycles from a read address to its first beat (default: 60)"),
    "stall": ("int", "probability of a stall on each channel of the bus, in 1/256"),
    "jitter": ("int", "up to so many cycles more latency; 2**k - 1"),
    "seed": ("int", "of stalls and jitter"),
}


def _yaml(value: dict[str, Any], indent: str = "") -> str:
    """Write nested dictionaries as YAML, and what they hold as JSON, which is YAML as well."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{indent}{key}:\n{_yaml(item, indent + '  ')}")
        elif isinstance(item, list) and len(item) > 1:
            rows = "".join(f"{indent}  - {json.dumps(one)}\n" for one in item)
            lines.append(f"{indent}{key}:\n{rows}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(item)}\n")
    return "".join(lines)


def _parameters(config: Config) -> dict[str, Any]:
    compiled = {
        "BITS": (config.axi_bits, "width of the memory bus; that of the accelerator"),
        "BYTES": (1 << 24, "size of the memory"),
    }
    found: dict[str, Any] = {
        name: {"datatype": "int", "paramtype": "vlogparam", "default": value, "description": text}
        for name, (value, text) in compiled.items()}
    for name, (kind, text) in {**_RUN, **_CHOICES}.items():
        found[name] = {"datatype": kind, "paramtype": "plusarg", "description": text}
    return found


def _lint(unit: str, prefix: str) -> dict[str, Any]:
    return {
        "description": f"Verilator's lint of {unit}",
        "flow": "lint",
        "flow_options": {"tool": "verilator", "verilator_options": ["-Wall"]},
        "filesets": ["rtl", "lint"],
        "toplevel": f"{prefix}{unit}",
    }


def _simulation(parameters: Sequence[str], prefix: str) -> dict[str, Any]:
    return {
        "description": "Run a program of python -m gen.program, with the options in its "
                       "fusesoc.args, and compare its output",
        "flow": "sim",
        "flow_options": {
            "tool": "verilator", "mode": "binary",
            "verilator_options": ["--timing", "--timescale 1ns/1ps", "--output-split 5000", "-j 0"],
        },
        "filesets": ["rtl", "lint", "bench"],
        "toplevel": f"{prefix}accelerator_host",
        "parameters": list(parameters),
    }


def core_file(units: Sequence[str], config: Config, version: str, bench: Sequence[str],
              prefix: str = "") -> str:
    """Return the text of the core file.

    Parameters
    ----------
    units
        Names of the designs, each in ``rtl/<prefix><unit>.v`` under a top module of that name.
    version
        Of this project.
    bench
        Files of ``sim`` without the prefix, with the top module ``<prefix>accelerator_host``; used
        with the accelerator.
    prefix
        Begins the names of all modules, of their files and of the core.
    """
    rtl = [f"rtl/{prefix}{unit}.v" for unit in units]
    filesets: dict[str, Any] = {
        "rtl": {"files": rtl, "file_type": "verilogSource"},
        "lint": {"files": ["lint/waivers.vlt"], "file_type": "vlt"},
    }
    targets: dict[str, Any] = {
        "default": {"description": f"The files, for a design that uses {' and '.join(units)}",
                    "filesets": ["rtl"], "toplevel": f"{prefix}{units[0]}"},
        "lint": _lint(units[0], prefix),
        **{f"lint_{unit}": _lint(unit, prefix) for unit in units},
    }
    core = {
        "name": f"vitforge:core:{prefix}{config.name}:{version}",
        "description": "Integer-only vision-transformer accelerator, configuration "
                       f"{config.name}",
        "filesets": filesets, "targets": targets,
    }
    if "accelerator" in units:
        include: dict[str, Any] = {"registers/vitforge_registers.vh": {"is_include_file": True}}
        filesets["bench"] = {"files": [include, *(f"sim/{prefix}{name}" for name in bench)],
                             "file_type": "verilogSource"}
        core["parameters"] = parameters = _parameters(config)
        targets["sim"] = _simulation(list(parameters), prefix)
    return f"CAPI=2:\n{_yaml(core)}"
