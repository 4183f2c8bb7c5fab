"""The trials of a search as a table, best first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import pandas as pd
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from app.evaluation.metrics import Metric
from app.evaluation.number_text import number_text, seconds_text
from app.search.space import Configuration, Value

FIXED_COLUMNS = ("trial", "value", "epochs", "parameters", "seconds", "status", "reason")
FOLD_COLUMNS = ("spread", "folds")  # behind the value, where trials are judged by cross-validation
WEIGHT_COLUMN = "weight"  # behind those, where trials answer together
FRONT_COLUMN = "front"  # behind the measures, where there are several objectives
FAILED = "failed"

_MAX_REASON = 60
_REASON_WIDTH = 30  # kept free for reasons; longer ones wrap
_PADDING = 2  # blanks between columns

_COLUMN_TYPES = {bool: "boolean", int: "Int64", float: "float64", str: "str"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial of the leaderboard.

    Args:
        trial: its number.
        status: completed, paused, pruned, failed or running.
        hyperparameters: the active ones, in the order of the space.
        value: best validation value of the objective; None if it has none.
        epochs: epochs trained.
        parameters: number of weights of the network.
        seconds: wall time of training.
        reason: why it failed, else empty.
        folds: folds trained, of which `value` is the mean; 0 where there are no folds.
        spread: standard error of that mean; None for fewer than two folds.
        weight: its share of the ensemble, 0 for one that is no member; None where there is no ensemble.
        measures: what else was measured, by name, in the units in which it is shown.
        broken: how far the trial is from keeping the limits; 0 for one that keeps them.
        front: whether it is on the Pareto front; None where there is one objective.
        place: where the search has it among trials of its value, from 0.
    """

    trial: int
    status: str
    hyperparameters: Configuration
    value: float | None = None
    epochs: int = 0
    parameters: int = 0
    seconds: float = 0.0
    reason: str = ""
    folds: int = 0
    spread: float | None = None
    weight: float | None = None
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    broken: float = 0.0
    front: bool | None = None
    place: int = 0


def leaderboard(rows: Iterable[TrialRow], *, metric: Metric) -> pd.DataFrame:
    """The trials as a table: best value first, then those without a value, then the failed ones.

    Args:
        rows: the trials in any order.
        metric: whose values they hold; its direction decides what is best.

    Returns:
        The columns `FIXED_COLUMNS`, then one column a hyperparameter in order of first appearance, with a missing
        value where it is not active. A hyperparameter called like a fixed column gets ` (hyperparameter)` behind.
        Behind `value` come `FOLD_COLUMNS` where trials have folds; those with the most folds are first then. Then come
        `WEIGHT_COLUMN` where trials answer together, the measures, and `FRONT_COLUMN` where there are several
        objectives. Trials that keep the limits come first.
    """
    ordered = sorted(rows, key=lambda row: _rank(row, metric))
    names = list(dict.fromkeys(name for row in ordered for name in row.hyperparameters))
    columns: dict[str, pd.Series] = {
        "trial": pd.Series([row.trial for row in ordered], dtype="int64"),
        "value": pd.Series(
            [math.nan if row.value is None else row.value for row in ordered], dtype="float64"
        ),
        **_fold_columns(ordered),
        **_weight_column(ordered),
        **_measure_columns(ordered),
        "epochs": pd.Series([row.epochs for row in ordered], dtype="int64"),
        "parameters": pd.Series([row.parameters for row in ordered], dtype="int64"),
        "seconds": pd.Series([row.seconds for row in ordered], dtype="float64"),
        "status": pd.Series([row.status for row in ordered], dtype="str"),
        "reason": pd.Series([row.reason for row in ordered], dtype="str"),
    }
    for name in names:
        values = [row.hyperparameters.get(name) for row in ordered]
        title = f"{name} (hyperparameter)" if name in columns or name in (*FIXED_COLUMNS, *FOLD_COLUMNS) else name
        columns[title] = pd.Series(values, dtype=_column_type(values))
    return pd.DataFrame(columns)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedLeaderboard:
    """`leaderboard_table` as wide as wherever it is printed.

    Args:
        board: made by `leaderboard`.
        metric: whose values it holds.
        max_rows: rows at most, at least 1.
    """

    board: pd.DataFrame
    metric: Metric
    max_rows: int = 10

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, for rich."""
        del console
        yield leaderboard_table(self.board, metric=self.metric, max_rows=self.max_rows, width=options.max_width)


def leaderboard_table(board: pd.DataFrame, *, metric: Metric, max_rows: int = 10, width: int = 80) -> Table:
    """The first rows for a terminal, with the columns that tell them apart.

    Hyperparameters that are the same in all rows shown are left out, and those for which there is no room. The
    reason appears if a failed trial is among the rows.

    Args:
        board: made by `leaderboard`.
        metric: whose values it holds.
        max_rows: rows at most, at least 1.
        width: of the terminal, in characters.
    """
    shown = board.head(max_rows)
    columns = {
        "trial": [number_text(value) for value in shown["trial"].tolist()],
        metric.name: [number_text(value) for value in shown["value"].tolist()],
        **_fold_cells(shown),
        **_measure_cells(shown),
        "epochs": [number_text(value) for value in shown["epochs"].tolist()],
        # A trial that failed before its network was built has no weights.
        "weights": [number_text(value or None) for value in shown["parameters"].tolist()],
        "time": [seconds_text(value) for value in shown["seconds"].tolist()],
        "status": shown["status"].tolist(),
    }
    reasons = [_shortened(reason) for reason in shown["reason"].tolist()]
    room = width + _PADDING - sum(_width(title, cells) for title, cells in columns.items())
    room -= min(_width("reason", reasons), _REASON_WIDTH) if any(reasons) else 0
    for name in board.columns:
        if name not in columns and name not in (*FIXED_COLUMNS, *FOLD_COLUMNS) and _differs(shown[name]):
            cells = [cell_text(value) for value in shown[name].tolist()]
            needed = _width(str(name), cells)
            if needed <= room:
                room -= needed
                columns[str(name)] = cells
    hidden = len(board) - len(shown)
    table = Table(
        box=None,
        padding=(0, _PADDING, 0, 0),
        pad_edge=False,
        header_style="bold",
        caption=f"and {hidden:,} more" if hidden > 0 else None,
        caption_justify="left",
    )
    for title in columns:
        # Text, not str: names and reasons may hold what rich takes for markup.
        table.add_column(Text(title), justify="left" if title == "status" else "right", no_wrap=True)
    if any(reasons):
        table.add_column("reason", overflow="fold")
        columns["reason"] = reasons
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def cell_text(value: object) -> str:
    """A hyperparameter's value for a table; `-` where it is not active."""
    return "-" if value is None or value is pd.NA else number_text(value)


def _rank(row: TrialRow, metric: Metric) -> tuple[float, ...]:
    if row.status == FAILED:
        return (2, 0, 0.0, row.trial)
    if row.value is None or not math.isfinite(row.value):
        return (1, 0, 0.0, row.trial)
    # A mean over fewer folds is no better for being lower.
    return (0, row.broken, -row.folds, metric.to_loss(row.value), row.place, row.trial)


def _fold_columns(rows: Sequence[TrialRow]) -> dict[str, pd.Series]:
    if not any(row.folds for row in rows):
        return {}
    spreads = [math.nan if row.spread is None else row.spread for row in rows]
    return {
        "spread": pd.Series(spreads, dtype="float64"),
        "folds": pd.Series([row.folds for row in rows], dtype="int64"),
    }


def _weight_column(rows: Sequence[TrialRow]) -> dict[str, pd.Series]:
    if all(row.weight is None for row in rows):
        return {}
    return {WEIGHT_COLUMN: pd.Series([row.weight or 0.0 for row in rows], dtype="float64")}


def _measure_columns(rows: Sequence[TrialRow]) -> dict[str, pd.Series]:
    names = dict.fromkeys(name for row in rows for name in row.measures)
    columns = {
        name: pd.Series([row.measures.get(name, math.nan) for row in rows], dtype="float64") for name in names
    }
    if any(row.front is not None for row in rows):
        columns[FRONT_COLUMN] = pd.Series([row.front for row in rows], dtype="boolean")
    return columns


def _measure_cells(shown: pd.DataFrame) -> dict[str, list[str]]:
    """The columns between the value and the epochs that are not about folds."""
    names = [str(name) for name in shown.columns]
    between = names[names.index("value") + 1 : names.index("epochs")]
    cells = {}
    for name in between:
        if name == FRONT_COLUMN:
            cells[name] = ["*" if value is True else "" for value in shown[name].tolist()]
        elif name == WEIGHT_COLUMN:
            cells[name] = [f"{value:.0%}" if value else "" for value in shown[name].tolist()]
        elif name not in FOLD_COLUMNS:
            cells[name] = [number_text(value) for value in shown[name].tolist()]
    return cells


def _fold_cells(shown: pd.DataFrame) -> dict[str, list[str]]:
    if "folds" not in shown:
        return {}
    spreads = [f"± {number_text(value)}" if math.isfinite(value) else "" for value in shown["spread"].tolist()]
    return {"std. error": spreads, "folds": [number_text(value) for value in shown["folds"].tolist()]}


def _column_type(values: list[Value | None]) -> str:
    """Types that know missing values: a whole number that is not always active must not turn into a float."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        return _COLUMN_TYPES[kinds.pop()]
    return "float64" if kinds == {int, float} else "object"


def _differs(values: pd.Series) -> bool:
    distinct: set[Hashable] = {None if pd.isna(value) else value for value in values}
    return len(distinct) > 1


def _width(title: str, cells: list[str]) -> int:
    return max(map(cell_len, [title, *cells])) + _PADDING


def _shortened(reason: str) -> str:
    line = reason.splitlines()[0] if reason else ""
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"
