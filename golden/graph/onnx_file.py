# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as a float network."""

__all__ = ["network", "recognised"]

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import inliner
from torch import nn

from golden.float import checkpoint
from golden.float.checkpoint import CheckpointError
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.graph.cursor import Cursor
from golden.graph.found import Found
from golden.graph.interpret import read
from golden.graph.swin import swin
from golden.graph.values import NotUnderstoodError
from golden.graph.vit import vit

#: Operators of a graph that is read at all.
_MOST = 200_000


def recognised(model: onnx.ModelProto) -> Found:
    """Return the network that a graph is.

    A norm that reads the patches as they come is a Swin's; anything else must be a ViT.

    Raises
    ------
    NotUnderstoodError
        The message has the first operator that is not understood.
    """
    graph = read(model)
    cursor = Cursor(graph)
    patches, norm = cursor.peek(), cursor.peek(1)
    family = swin if (patches is not None and norm is not None and norm.kind == "norm"
                      and patches.kind == "convolution"
                      and graph.only(norm.sources[0]) is patches) else vit
    return family(cursor)


def _opened(path: Path) -> onnx.ModelProto:
    """Read a file, and what it names beside it."""
    try:
        path.open("rb").close()
        model = onnx.load(path)
    except OSError as error:
        raise CheckpointError(f"can't read {error.filename or path}: "
                              f"{error.strerror or error}") from None
    except Exception:   # what a hostile file may make of the parser has no end
        raise CheckpointError(f"{path} is not an ONNX file, is truncated or corrupt, or its "
                              "weights are not beside it") from None
    if not model.graph.node:
        raise CheckpointError(f"{path} holds no graph")
    return inliner.inline_local_functions(model) if model.functions else model


def network(path: Path) -> Vit | Swin:
    """Build the network of an ONNX file, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file can't be read, or its graph is none of the known networks.
    """
    model = _opened(path)
    if len(model.graph.node) > _MOST:
        raise CheckpointError(f"{path} has {len(model.graph.node)} operators: at most {_MOST}")
    try:
        found = recognised(model)
        made: Vit | Swin
        if found.family == "vit":
            made = Vit(VitSpec(**found.fields))
        else:
            made = Swin(SwinSpec(**found.fields))
    except NotUnderstoodError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    state = {name: torch.from_numpy(np.array(value, np.float32, order="C"))
             for name, value in found.state.items()}
    checkpoint.fill(made, state, path)
    assert isinstance(made, nn.Module)
    return made.eval()
