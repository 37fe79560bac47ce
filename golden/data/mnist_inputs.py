# SPDX-License-Identifier: Apache-2.0
"""An image to run: a shipped digit by its number, or a file."""

__all__ = ["read_image"]

import numpy as np
import torch
from torch import Tensor

from golden.data import mnist


def read_image(source: str) -> Tensor:
    """Return an image as uint8 ``[1, H, W]``: a shipped one by its number, or a ``.npy`` file's.

    Raises
    ------
    ValueError
        If there is no such image or file, or the file holds something else.
    """
    test = mnist.sample().test
    if source.isdecimal():
        if int(source) >= len(test):
            raise ValueError(f"the image must be one of 0 to {len(test) - 1}, not {source}")
        return test.images[int(source):int(source) + 1]
    try:
        array = np.load(source, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"can't read the image {source}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise ValueError(f"{source} is not a .npy file of numbers") from None
    if array.dtype != np.uint8 or array.ndim != 2:
        raise ValueError(f"{source} must be a grey image of uint8, [height, width], not "
                         f"{array.dtype} of shape {list(array.shape)}")
    return torch.from_numpy(array)[None]
