# SPDX-License-Identifier: Apache-2.0
"""``--onnx`` of `golden.quantize`: only it needs the extra `onnx`."""

__all__ = ["check_onnx", "write_onnx"]

from collections.abc import Mapping
from pathlib import Path

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.onnx.export import model, write
from golden.onnx.graph import Graph
from golden.onnx.layers import check_settings
from golden.ptq.method import Method
from golden.ptq.record import Record


def check_onnx(path: Path, opset: int, method: Method) -> None:
    """Refuse what can't be written, and make its folder: calibration may take minutes.

    Raises
    ------
    ValueError
        The message names the option.
    OSError
        If the folder can't be made.
    """
    if path.suffix != ".onnx" or path.is_dir():
        raise ValueError(f"--onnx must be a file that ends with .onnx, not {path}")
    Graph(opset)
    check_settings(method.settings)
    path.parent.mkdir(parents=True, exist_ok=True)


def write_onnx(path: Path, opset: int, simulated: Vit | Swin, record: Record,
               notes: Mapping[str, str]) -> str:
    """Write a simulated network with notes as metadata, and say in a line what it is.

    Raises
    ------
    ValueError
        If ONNX has nothing for a format; the message names the tensor.
    """
    made = model(simulated, record, opset, notes)
    write(path, made)
    return f"{path}, {len(made.graph.node)} operators of opset {opset}"
