# SPDX-License-Identifier: Apache-2.0
"""Rows as a table: files, Pareto fronts, and the best design for a budget."""

__all__ = ["Budget", "completed", "frame", "front", "write"]

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explore.objectives import TARGETS, order
from vitforge.base.files import replace

if TYPE_CHECKING:
    import pandas

#: Columns that come first; the others follow as they came.
FIRST = ("point", "space", "study", "design", "status", "reason", "network")


def frame(rows: Sequence[Mapping[str, Any]], clock: float = 100.0) -> "pandas.DataFrame":
    """Make a DataFrame of rows, one a point, with what follows from several columns.

    Parameters
    ----------
    clock
        MHz for designs that were not placed; ``clock_kind`` is then "assumed".
    """
    import pandas
    table = pandas.DataFrame([completed(row, clock) for row in rows])
    columns = [name for name in FIRST if name in table.columns]
    return table[columns + [name for name in table.columns if name not in columns]]


def completed(row: Mapping[str, Any], clock: float) -> dict[str, Any]:
    """Add to a row what its clock gives; `clock` in MHz where it was not placed."""
    row = {name: value for name, value in row.items() if name != "lasting"}
    if row.get("cycles"):
        placed = row.get("fmax_mhz")
        row["clock_mhz"] = placed or clock
        row["clock_kind"] = "placed" if placed else "assumed"
        row["fps"] = row["clock_mhz"] * 1e6 / row["cycles"]
        if row.get("macs"):
            row |= _per_cell(row)
    return row


def _per_cell(row: Mapping[str, Any]) -> dict[str, float]:
    """Products of the network a second, by the cells of the whole design that make them."""
    found = {"products_per_s": row["macs"] * row["fps"]}
    for target in TARGETS:
        if row.get(f"{target}.luteq"):
            found[f"{target}.products_per_s_lut"] = found["products_per_s"] / row[f"{target}.luteq"]
        if row.get(f"{target}.dsp"):
            found[f"{target}.products_per_cycle_dsp"] = \
                row["macs"] / row["cycles"] / row[f"{target}.dsp"]
    return found


def write(table: "pandas.DataFrame", folder: Path) -> list[Path]:
    """Write ``results.parquet`` and ``results.csv``; each appears whole."""
    paths = [folder / "results.parquet", folder / "results.csv"]
    replace(paths[0], lambda path: table.to_parquet(path, index=False))
    replace(paths[1], lambda path: table.to_csv(path, index=False))
    return paths


def front(table: "pandas.DataFrame", objectives: Mapping[str, str]) -> "pandas.Series[bool]":
    """Tell which rows no other row beats: at least as good in all objectives, better in one.

    Parameters
    ----------
    objectives
        "min" or "max" by column; rows that lack a value, or are not "ok", are never in front.

    Raises
    ------
    ValueError
        If there is no such column, or a direction is neither.
    """
    import pandas
    for name, direction in objectives.items():
        if name not in table.columns:
            raise ValueError(f"there is no column {name!r}")
        if direction not in ("min", "max"):
            raise ValueError(f"the direction of {name} must be min or max, not {direction!r}")
    values = pandas.DataFrame({
        name: pandas.to_numeric(table[name], errors="coerce") * (1 if way == "min" else -1)
        for name, way in objectives.items()}, index=table.index)
    whole = values.notna().all(axis=1) & (table["status"] == "ok")
    inside = values[whole].to_numpy(dtype=float)
    result = pandas.Series(False, index=table.index)
    beaten = [bool(((inside <= item).all(1) & (inside < item).any(1)).any()) for item in inside]
    if beaten:
        result[whole] = [not is_beaten for is_beaten in beaten]
    return result


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a design may cost and must do; None does not matter.

    Attributes
    ----------
    max_lut, max_dsp
        LUT equivalents and multipliers of `target`.
    min_fps
        Images a second.
    max_drop
        Points of top-1 below the float network.
    """

    max_lut: float | None = None
    max_dsp: float | None = None
    min_fps: float | None = None
    max_drop: float | None = None
    target: str = "ecp5"

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and value < 0:
                option = "--" + item.name.replace("_", "-")
                raise ValueError(f"{option} must be at least 0, not {value:g}")

    def limits(self) -> list[tuple[str, str, str, float]]:
        """Option, column, comparison and bound of all that matters."""
        table = (("--max-lut", f"{self.target}.luteq", "<=", self.max_lut),
                 ("--max-dsp", f"{self.target}.dsp", "<=", self.max_dsp),
                 ("--min-fps", "fps", ">=", self.min_fps),
                 ("--max-drop", "drop", "<=", self.max_drop))
        return [(option, column, how, bound) for option, column, how, bound in table
                if bound is not None]

    def answer(self, table: "pandas.DataFrame") -> tuple["pandas.Series[Any] | None", str]:
        """Return the best row within the budget, and one line that says which it is, or why none.

        The best has the most images a second (of units: results), then the fewest LUT equivalents,
        then the least loss, and so on through all of `explore.objectives.order` that was
        measured. So no other within the budget beats it: one that is at least as good in all of
        them and better in one comes before it.
        """
        left = table[table["status"] == "ok"]
        compare: dict[str, Callable[[Any, float], Any]] = {"<=": operator.le, ">=": operator.ge}
        for option, column, how, bound in self.limits():
            if column not in left.columns or left[column].notna().sum() == 0:
                return None, f"no design: {column} was not measured, which {option} bounds"
            known = left[left[column].notna()]
            kept = known[compare[how](known[column], bound)]
            if kept.empty:
                nearest = known[column].min() if how == "<=" else known[column].max()
                return None, (f"no design: {option} {bound:g} rules out all {len(known)} that are "
                              f"left; the nearest has {nearest:,.6g}")
            left = kept
        if left.empty:
            return None, "no design: no point has status ok"
        ways = {name: way for name, way in order(self.target).items() if name in left.columns}
        best = left.sort_values(list(ways), ascending=[way == "min" for way in ways.values()],
                                na_position="last").iloc[0] if ways else left.iloc[0]
        figures = ", ".join(f"{name} {best[name]:,.6g}" for name in (
            f"{self.target}.luteq", f"{self.target}.dsp", "fps", "elements_per_cycle", "drop",
            "energy_uj", "bytes")
            if name in left.columns and best[name] == best[name])
        return best, f"{best['design']} {best['point']} of {best['study']}: {figures}"
