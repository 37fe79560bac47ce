# SPDX-License-Identifier: Apache-2.0
"""Whether something is done already: a hash of all that it depends on, kept beside it."""

__all__ = ["STAMP", "filling", "key"]

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: In a folder that was filled to the end: the key of what it was filled for.
STAMP = "built"


def key(inputs: Any) -> str:
    """Hash what JSON can say, 64 hexadecimal digits; the order of a mapping doesn't matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@contextmanager
def filling(folder: Path, inputs: Any) -> Iterator[bool]:
    """Say whether the block has to fill the folder; if so it is empty, and stamped at the end.

    A folder that was filled for the same inputs, to the end, is left as it is.
    """
    stamp, wanted = folder / STAMP, key(inputs)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        yield False
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield True
    stamp.write_text(wanted, encoding="utf-8")
