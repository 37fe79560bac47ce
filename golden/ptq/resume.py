# SPDX-License-Identifier: Apache-2.0
"""What a run of ``golden.quantize`` has done already, so that a killed one goes on.

Beside the record, ``OUT.progress`` (JSON) holds a key of everything that the result depends on, a
digest of the record, and how many images each network has classified. It is written whole or not
at all, after the record, and removed when the run is complete. With another key, or a record that
is not the one it was written for, it counts for nothing.
"""

__all__ = ["Ledger", "key"]

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import golden
from golden.ptq.record import Record, RecordError
from vitforge.base import stamps
from vitforge.base.files import replace


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key(options: Mapping[str, Any], whole: Iterable[Path], listed: Iterable[Path]) -> str:
    """Return a digest of a run's options, its inputs and this package's code.

    Parameters
    ----------
    options
        Whatever JSON can hold.
    whole
        Files whose contents count.
    listed
        Files, possibly many and large, of which path, size and time of change count.
    """
    code = sorted(Path(golden.__file__).parent.rglob("*.py"))
    seen = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in listed]
    plain = [dict(options), [_digest(path) for path in (*code, *whole)], seen]
    return stamps.key(plain)


@dataclass(eq=False)
class Ledger:
    """What the run that writes a record to `output` has done.

    Attributes
    ----------
    output
        File of the record.
    key
        Of the run.
    record
        The decision, if an earlier run of the same key has made it.
    counts
        By network: images classified, and those of them that were right.
    """

    output: Path
    key: str
    record: Record | None = None
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the progress."""
        return self.output.with_name(f"{self.output.name}.progress")

    @classmethod
    def open(cls, output: Path, key: str) -> "Ledger":
        """Read what an earlier run has left; anything unusable is nothing."""
        found = cls(output, key)
        try:
            plain = json.loads(found.path.read_text())
            if (plain["key"], plain["record"]) == (key, found._digests()):
                found.record = Record.load(output)
                found.counts = {name: (int(done), int(right))
                                for name, (done, right) in plain["counts"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecordError):
            return cls(output, key)
        return found

    def decided(self, record: Record) -> None:
        """Write the record, and that it is this run's."""
        # An older run's progress must not be taken for that of the new record.
        self.path.unlink(missing_ok=True)
        record.save(self.output)
        self.record, self.counts = record, {}
        self._write()

    def counted(self, name: str, done: int, right: int) -> None:
        """Keep how many images a network has classified so far."""
        self.counts[name] = (done, right)
        self._write()

    def complete(self) -> None:
        """Remove the file: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)

    def _digests(self) -> list[str]:
        named = json.loads(self.output.read_text())["parameters"]
        arrays = [] if named is None else [self.output.with_name(named)]
        return [_digest(path) for path in (self.output, *arrays)]

    def _write(self) -> None:
        plain = {"key": self.key, "record": self._digests(), "counts": self.counts}
        text = json.dumps(plain) + "\n"
        replace(self.path, lambda temporary: temporary.write_text(text))
