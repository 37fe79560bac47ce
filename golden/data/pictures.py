# SPDX-License-Identifier: Apache-2.0
"""Data sets as folders of pictures, a folder a class, for `golden.quantize` and `gen.program`.

``<output>/<split>/<class>/<number>.png``, without loss, in the order of the split.
"""

__all__ = ["TOO_LARGE", "Splits", "opened", "write"]

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image
from torch import Tensor

from vitforge.base.cli import replace_folder
from vitforge.base.progress import progress_bar

#: Images uint8, ``[N, H, W]`` or ``[N, C, H, W]``, and labels ``[N]``, by the name of the split.
Splits = Mapping[str, tuple[Tensor, Tensor]]

#: What `opened` raises for a picture of more pixels than Pillow's limit.
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """Open a picture, unless it has more than ``Image.MAX_IMAGE_PIXELS`` pixels.

    Pillow itself raises only above twice as many, and warns below.

    Raises
    ------
    OSError, SyntaxError, ValueError
        Those of Pillow, if it is no picture, or is damaged.
    DecompressionBombError, DecompressionBombWarning
        If it is too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(file)
    with picture:
        yield picture


def write(output: Path, classes: Sequence[str], read: Callable[[], Splits]) -> int:
    """Write what `read` gives into a folder that appears whole, and say where; return 0.

    Raises
    ------
    ValueError, OSError
        Those of `read`, and if the folder can't be made.
    """
    with replace_folder(output) as temporary:
        splits = read()
        total = sum(len(labels) for _, labels in splits.values())
        done = 0
        with progress_bar("pictures", total) as update:
            for split, (images, labels) in splits.items():
                for name in classes:
                    (temporary / split / name).mkdir(parents=True)
                for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                    pixels = image if image.ndim == 2 else image.permute(1, 2, 0)
                    Image.fromarray(pixels.numpy()).save(
                        temporary / split / classes[label] / f"{number:05}.png")
                    done += 1
                    update(done)
    print(f"{total} pictures in {' and '.join(str(output / split) for split in splits)}")
    return 0
