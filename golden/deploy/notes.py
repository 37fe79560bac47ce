# SPDX-License-Identifier: Apache-2.0
"""What a deployment changed, and why: a `Note` for each tensor, kept in a file."""

__all__ = ["Note", "load_notes", "save_notes", "summary"]

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vitforge.base.files import replace


@dataclass(frozen=True)
class Note:
    """One tensor, or one operation, that is not what the record says.

    Attributes
    ----------
    tensor
        Its name; ``*`` stands for all blocks or layers.
    decided, deployed
        Formats in words.
    why
        What in the datapath asks for it.
    """

    tensor: str
    decided: str
    deployed: str
    why: str


def save_notes(path: str | Path, notes: Sequence[Note]) -> None:
    """Write notes as JSON, a list of objects."""
    text = json.dumps([asdict(note) for note in notes], indent=1) + "\n"
    replace(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def load_notes(path: str | Path) -> tuple[Note, ...]:
    """Read what `save_notes` wrote.

    Raises
    ------
    ValueError
        If the file can't be read or holds something else.
    """
    try:
        return tuple(Note(**item) for item in json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no notes of a deployment ({error})") from None


def summary(notes: Sequence[Note]) -> list[tuple[int, Note]]:
    """Gather the notes of equal tensors of all blocks: how many, and the first with ``*``."""
    groups: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        groups.setdefault((re.sub(r"^blocks\.\d+\.", "blocks.*.", note.tensor), note.why),
                          []).append(note)
    return [(len(group), Note(name, group[0].decided, group[0].deployed, why))
            for (name, why), group in groups.items()]
