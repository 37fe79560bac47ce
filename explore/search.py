# SPDX-License-Identifier: Apache-2.0
"""Search of large spaces with several objectives: Optuna, with its study on disk.

Every process that names the same folder works on the same study. What a trial costs is kept by the
store, so a configuration that is proposed again, or by another study, costs nothing.
"""

__all__ = ["search"]

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explore.measured import Row, measured
from explore.point import Point
from explore.pool import Executor
from explore.space import Space, Study
from explore.store import Store
from explore.table import completed

if TYPE_CHECKING:
    import optuna


def _open(space: Space, study: Study, folder: Path) -> "optuna.Study":
    """Open a study's file, or begin it."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    # Other axes are another study.
    mark = hashlib.sha256(repr((study.axes, space.objectives)).encode()).hexdigest()[:8]
    path = folder / f"{space.name}-search.log"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(storage)
        name = f"{study.name}-{mark}"
        before = len(optuna.load_study(study_name=name, storage=storage).trials) \
            if name in names else 0
        # Seeded, but not with what an earlier run of this study has drawn already.
        sampler = optuna.samplers.TPESampler(seed=space.seed + before, constant_liar=True,
                                             n_startup_trials=10)
        return optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, load_if_exists=True,
            directions=["minimize" if way == "min" else "maximize"
                        for way in space.objectives.values()])


def search(space: Space, who: Executor, store: Store, folder: Path, trials: int, *, batch: int,
           progress: Callable[[int, Row], object] = lambda done, row: None) -> list[Row]:
    """Run trials of every study of a space until each has had `trials` of them.

    Returns
    -------
    list of dict
        A row for every point that was tried, now or before.

    Raises
    ------
    SpaceError
        If the space names no objectives, or a study doesn't measure one.
    """
    space.searched()
    rows: dict[tuple[str, str], Row] = {}
    done = 0

    def note(count: int, row: Row) -> None:
        nonlocal done
        done += 1
        progress(done, row)

    for study in space.studies:
        _search(space, study, _open(space, study, folder), who, store, trials, batch, note, rows)
    return list(rows.values())


def _search(space: Space, study: Study, found: "optuna.Study", who: Executor, store: Store,
            trials: int, batch: int, note: Callable[[int, Row], object],
            rows: dict[tuple[str, str], Row]) -> None:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState
    # Indices: the sampler takes numbers for what they are, and a choice may be a string.
    axes: dict[str, Any] = {name: CategoricalDistribution(list(range(len(values))))
                            for name, values in study.axes.items()}

    def point_of(numbers: dict[str, int]) -> Point | None:
        return study.point({name: values[numbers[name]] for name, values in study.axes.items()})

    past = [point for trial in found.get_trials(deepcopy=False)
            if trial.state.is_finished() and (point := point_of(trial.params))]
    for point, row in measured(list({point.id: point for point in past}.values()), who, store,
                               note):
        rows[point.id, point.study] = row
    while (left := trials - sum(trial.state.is_finished()
                                for trial in found.get_trials(deepcopy=False))) > 0:
        asked: dict[str, list[Any]] = {}
        points: dict[str, Point] = {}
        for _ in range(min(batch, left)):
            trial = found.ask(axes)
            point = point_of(trial.params)
            if point is None:
                found.tell(trial, state=TrialState.FAIL)
                continue
            asked.setdefault(point.id, []).append(trial)
            points[point.id] = point
        for point, row in measured(list(points.values()), who, store, note):
            rows[point.id, point.study] = row
            values = _values(row, space)
            for trial in asked[point.id]:
                found.tell(trial, values, state=None if values else TrialState.FAIL)


def _values(row: Row, space: Space) -> Sequence[float] | None:
    """Objectives of a row in order; None if it failed or one was not measured."""
    full = completed(row, space.clock)
    values = [full.get(name) for name in space.objectives]
    if row["status"] != "ok" or any(value is None for value in values):
        return None
    return [float(value) for value in values if value is not None]
