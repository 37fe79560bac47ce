# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph that grows node by node."""

__all__ = ["Graph"]

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from golden.onnx.options import HIGHEST, LOWEST, OPSET

#: Types that NumPy has no word for, by ONNX's.
_NARROW = (TensorProto.INT4, TensorProto.UINT4)


class Graph:
    """Nodes and constants so far; a value is the name of a tensor.

    Parameters
    ----------
    opset
        Version of ONNX's operators, `LOWEST` to `HIGHEST`.

    Raises
    ------
    ValueError
        If the version is out of range.
    """

    def __init__(self, opset: int = OPSET) -> None:
        if not LOWEST <= opset <= HIGHEST:
            raise ValueError(f"--opset must be {LOWEST} to {HIGHEST}, not {opset}")
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._taken: set[str] = set()
        self._place = ""

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Begin the names of what is added with those of a module."""
        before, self._place = self._place, place
        try:
            yield
        finally:
            self._place = before

    def _name(self, last: str) -> str:
        name = start = f"{self._place}/{last}" if self._place else last
        number = 1
        while name in self._taken:
            number += 1
            name = f"{start}_{number}"
        self._taken.add(name)
        return name

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return that."""
        name = self._name(operator)
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Tensor | np.ndarray[Any, Any] | Sequence[int] | float,
                 last: str = "constant", kind: int | None = None) -> str:
        """Add a constant: float32 of real values, int64 of a sequence, or of an ONNX type."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype == np.float64 and kind is None:
            array = array.astype(np.float32)
        name = self._name(last)
        if kind in _NARROW:
            tensor = helper.make_tensor(name, kind, array.shape, array.flatten())
        else:
            if kind is not None:
                array = array.astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self._constants.append(tensor)
        return name

    def model(self, source: tuple[str, Sequence[int | str | None]],
              result: tuple[str, Sequence[int | str | None]], made: str,
              notes: Mapping[str, str]) -> onnx.ModelProto:
        """Return the model, checked, with one float input and one float output.

        Parameters
        ----------
        source, result
            Their names and shapes; a dimension that is a word, or None, is any.
        made
            The value that becomes the result.
        notes
            Metadata.
        """
        self._nodes.append(helper.make_node("Identity", [made], [result[0]], name=result[0]))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in (source, result)]
        graph = helper.make_graph(self._nodes, "network", ends[:1], ends[1:], self._constants)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="vitforge",
                                  ir_version=helper.find_min_ir_version_for(opsets))
        helper.set_model_props(model, dict(notes))
        onnx.checker.check_model(model, full_check=True)
        return model
