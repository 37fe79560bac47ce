# SPDX-License-Identifier: Apache-2.0
"""Explore a space from Python.

>>> from explore.run import explore
>>> table = explore("units", folder="build/explore", jobs=2)      # doctest: +SKIP
>>> table[["study", "config.exponential", "ecp5.luteq", "fmax_mhz"]]    # doctest: +SKIP
"""

__all__ = ["explore"]

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explore.measured import Progress, Row, measured
from explore.pool import executor, processes
from explore.search import search
from explore.space import Space, SpaceError
from explore.space_file import read
from explore.store import Failure, Store
from explore.table import frame
from explore.widths import greedy
from vitforge.spec.config import ConfigError

if TYPE_CHECKING:
    import pandas

#: Called before each step of a greedy walk: the study, how many are done, and how many there are.
Steps = Callable[[str, int, int], object]


def walked(space: Space, store: Store,
           steps: Steps = lambda study, done, total: None) -> Space:
    """Return the space with what the greedy walks of its studies find.

    Raises
    ------
    ValueError
        If a configuration can't run the network.
    """
    studies = []
    for study in space.studies:
        if study.greedy:
            try:
                stops = greedy(study.base, study.greedy, store,
                               functools.partial(steps, study.name))
            except (Failure, ConfigError) as error:
                raise SpaceError(f"study {study.name!r}: {error}") from None
            study = dataclasses.replace(study, walked=tuple(stops))
        studies.append(study)
    return dataclasses.replace(space, studies=tuple(studies))


def explore(space: Space | str | Path, *, folder: str | Path = "build/explore",
            cache: str | Path | None = None, jobs: int | None = None, where: str = "local",
            retry: bool = False, trials: int | None = None, clock: float | None = None,
            studies: Sequence[str] = (),
            progress: Progress = lambda done, row: None,
            steps: Steps = lambda study, done, total: None) -> "pandas.DataFrame":
    """Measure every point of a space, or search it, and return the table.

    May be interrupted at any time: what was measured is in the cache, and the next call goes on
    from there.

    Parameters
    ----------
    space
        A `Space`, the name of a ready one, or a TOML file.
    folder
        Of the journal of a search, and of the cache if that has no folder of its own.
    cache
        Where results are kept, of all spaces that share it; None is ``folder/cache``.
    jobs
        Processes of this machine; None sizes them to its cores and memory.
    where
        "local", or "dask://HOST:PORT" of a cluster's scheduler.
    retry
        Try again what failed before.
    trials
        Search with so many trials a study instead of enumerating; needs objectives in the space.
    clock
        MHz for designs that are not placed; None is the space's.
    studies
        Names of the studies to explore; none is all.
    progress, steps
        Called with every row, and before every step of a greedy walk.

    Returns
    -------
    pandas.DataFrame
        One row a point, in the space's order (of a search: as they came). Columns: ``status``
        ("ok", "failed" or "refused") with a ``reason``, ``config.*``, measurements, ``seconds*``,
        tool ``versions``, and the ``task`` that repeats the point. docs/exploration.md lists them.

    Raises
    ------
    ValueError
        If the space is unknown, empty or contradictory.
    OSError
        If results can't be written.
    """
    found = space if isinstance(space, Space) else read(space)
    found = found.only(studies)
    if clock is not None:
        found = dataclasses.replace(found, clock=clock)
    kept = Path(folder) / "cache" if cache is None else Path(cache)
    store = Store(kept, retry=retry)
    who = executor(where, jobs or processes(), kept, retry=retry)
    if trials is not None or found.trials:
        rows = search(found, who, store, Path(folder), trials or found.trials,
                      batch=jobs or processes(), progress=progress)
        return frame(rows, found.clock)
    found = walked(found, store, steps)
    points = found.points()
    rows_of: dict[tuple[str, str], Row] = {}
    for point, row in measured(points, who, store, progress):
        rows_of[point.id, point.study] = row
    return frame([rows_of[point.id, point.study] for point in points], found.clock)
