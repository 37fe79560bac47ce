# SPDX-License-Identifier: Apache-2.0
"""Rows for points: those that are kept at once, the others as they are measured."""

__all__ = ["Row", "Progress", "measured"]

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from explore.measure import row_inputs
from explore.point import Point
from explore.pool import Executor
from explore.store import Store

Row = dict[str, Any]
#: Called with the number of points that are done and with each row as it comes.
Progress = Callable[[int, Row], object]


def measured(points: Iterable[Point], who: Executor, store: Store,
             progress: Progress = lambda done, row: None) -> Iterator[tuple[Point, Row]]:
    """Yield a row for every point: those that are kept at once, the others as they come.

    Points that are the same but for their study are measured once.
    """
    waiting: dict[str, list[Point]] = {}
    done = 0
    for point in points:
        # Failures are kept by the stages: rows of those are made again, at no cost.
        found = store.peek("row", row_inputs(point))
        if found and not (store.retry and found.result["status"] != "ok"):
            done += 1
            row = _labelled(found.result | {"seconds_now": 0.0}, point)
            progress(done, row)
            yield point, row
        else:
            waiting.setdefault(point.id, []).append(point)
    for first, answer in who.run([same[0] for same in waiting.values()]) if waiting else ():
        if answer["status"] != "failed" or answer.get("lasting"):
            store.put("row", row_inputs(first), answer, answer.get("seconds", 0.0))
        for point in waiting[first.id]:
            done += 1
            row = _labelled(answer, point)
            progress(done, row)
            yield point, row


def _labelled(row: Row, point: Point) -> Row:
    """Return the row of an equal point, under this one's study."""
    return row | {"space": point.space, "study": point.study, "task": json.dumps(point.to_dict())}
