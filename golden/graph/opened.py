# SPDX-License-Identifier: Apache-2.0
"""A network of any file: a state dict, or an ONNX graph that is recognised."""

__all__ = ["open_network"]

from pathlib import Path

from golden.float.preprocessing_options import ANY
from golden.float.shape import Checkpoint, open_checkpoint

SUFFIX = ".onnx"


def open_network(path: str | Path, name: str = ANY, heads: int | None = None,
                 token: str | None = None, quick: bool = False) -> Checkpoint:
    """Build the network of a file, in evaluation mode.

    Parameters
    ----------
    path
        A state dict (`golden.float.shape.open_checkpoint`), or a float network as ONNX.
    name, heads, token, quick
        Of a state dict; a graph shows its heads and its GELU, and has no other name than `ANY`.

    Raises
    ------
    CheckpointError
        As `open_checkpoint`; or if a graph is none of the known networks: the message has the first
        operator that is not understood, its name, and what was expected there.
    ValueError
        As `open_checkpoint`; or if a graph is given a name or heads.
    """
    if Path(path).suffix != SUFFIX:
        return open_checkpoint(path, name, heads, token, quick)
    for option, given in (("model", name != ANY), ("heads", heads is not None),
                          ("token", token is not None), ("quick-gelu", quick)):
        if given:
            raise ValueError(f"--{option} does not go with {path}: a graph shows its whole shape")
    from golden.graph.onnx_file import network

    return Checkpoint(model=network(Path(path)), heads="from the graph")
