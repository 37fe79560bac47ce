# SPDX-License-Identifier: Apache-2.0
"""In what two quantization records differ."""

import torch

from golden.ptq.record import Record


def differences(one: Record, other: Record) -> tuple[str, ...]:
    """Return the names of the tensors whose format or parameter differs."""
    names = {**one.formats, **other.formats}
    found = [name for name in names if one.formats.get(name) != other.formats.get(name)]
    parameters = {**one.parameters, **other.parameters}
    return tuple(found + [
        name for name in parameters
        if name not in one.parameters or name not in other.parameters
        or not torch.equal(one.parameters[name], other.parameters[name])])
