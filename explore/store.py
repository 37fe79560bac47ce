# SPDX-License-Identifier: Apache-2.0
"""Results on disk, each in a file named by the hash of all that it depends on.

A file appears whole or not at all, so a run may be killed at any time; it carries a checksum, so a
damaged one is measured again and not believed. Two processes that want the same result wait for
each other: nothing is measured twice.
"""

__all__ = ["Failure", "Found", "Store", "key"]

import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitforge.base import stamps
from vitforge.base.files import replace


class Failure(Exception):
    """A measurement that could not be made; the message is one line.

    Attributes
    ----------
    lasting
        Whether the same inputs will fail again: it is then kept like a result. A tool that was
        killed, or a machine without it, may do better the next time.
    refused
        Whether it is no fault of a tool, but a configuration that can't run the network.
    """

    def __init__(self, reason: str, *, lasting: bool = True, refused: bool = False) -> None:
        super().__init__(" ".join(reason.split()))
        self.lasting, self.refused = lasting, refused


@dataclass(frozen=True)
class Found:
    """A result, the seconds that it once took, and whether it was there already."""

    result: dict[str, Any]
    seconds: float
    cached: bool


def key(inputs: Mapping[str, Any]) -> str:
    """Hash what JSON can say."""
    return stamps.key(inputs)[:24]


def _sum(record: Mapping[str, Any]) -> str:
    return key({name: value for name, value in record.items() if name != "sum"})


class Store:
    """A folder of results.

    Parameters
    ----------
    folder
        Made when something is put into it; may be removed at any time.
    retry
        Whether kept failures are tried again.
    """

    def __init__(self, folder: Path | str, *, retry: bool = False) -> None:
        self.folder = Path(folder)
        self.retry = retry

    def path(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """Return where the result of a stage is, or would be."""
        return self.folder / stage / f"{key(inputs)}.json"

    def peek(self, stage: str, inputs: Mapping[str, Any]) -> Found | None:
        """Return a result if it is there and whole; raise the `Failure` that is there instead."""
        return self._read(self.path(stage, inputs))

    def put(self, stage: str, inputs: Mapping[str, Any], result: Mapping[str, Any],
            seconds: float) -> None:
        """Keep a result."""
        self._write(self.path(stage, inputs), {"inputs": inputs, "result": result,
                                               "seconds": seconds})

    def get(self, stage: str, inputs: Mapping[str, Any],
            measure: Callable[[], dict[str, Any]]) -> Found:
        """Return a result, measuring it if it is not there.

        Raises
        ------
        Failure
            If `measure` raises it, or has before and it lasts.
        """
        path = self.path(stage, inputs)
        with self._locked(path):
            if found := self._read(path):
                return found
            start = time.monotonic()
            try:
                result = measure()
            except Failure as failure:
                if failure.lasting:
                    self._write(path, {"inputs": inputs, "failure": str(failure),
                                       "refused": failure.refused,
                                       "seconds": time.monotonic() - start})
                raise
            seconds = time.monotonic() - start
            # As it will be read back: tuples are lists the first time as well.
            result = json.loads(json.dumps(result))
            self.put(stage, inputs, result, seconds)
            return Found(result, seconds, False)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        with lock.open("w") as file:
            # Released by the system when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self, path: Path) -> Found | None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            whole = record["sum"] == _sum(record)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            # Kept for whoever wants to see what happened to it.
            kept = path.with_suffix(".damaged")
            path.replace(kept)
            print(f"{path} is damaged and will be measured again; it is kept as {kept.name}",
                  file=sys.stderr, flush=True)
            return None
        if "failure" in record:
            if self.retry:
                return None
            raise Failure(record["failure"], refused=record.get("refused", False))
        return Found(record["result"], record["seconds"], True)

    def _write(self, path: Path, record: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record | {"sum": _sum(json.loads(json.dumps(record)))}, indent=1) + "\n"
        replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
