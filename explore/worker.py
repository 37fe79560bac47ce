# SPDX-License-Identifier: Apache-2.0
"""``python -m explore.worker``: points to measure on standard input, rows on standard output.

One JSON object a line. A process of its own, because a point may bring it down with it: the parent
sees the end of the stream, says so in the point's row, and starts another.
"""

__all__ = ["main", "work"]

import json
import os
import sys
from typing import Any

from explore.measure import measure
from explore.point import Point


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Measure ``{"point", "folder", "retry"}``: a row, or ``{"fatal": text}`` for a full disk."""
    try:
        return measure(Point.from_dict(task["point"]), task["folder"], retry=task["retry"])
    except OSError as error:
        return {"fatal": f"{error.filename or task['folder']}: {error.strerror or error}"}
    except Exception as error:  # the others must go on
        return {"crash": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def main() -> int:
    """Serve until the input ends."""
    os.environ["OMP_NUM_THREADS"] = "1"   # there is a process for every core
    # What a library prints must not come between the rows.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(work(json.loads(line))) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
