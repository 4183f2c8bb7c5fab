from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from app.evaluation.leaderboard import FIXED_COLUMNS, FittedLeaderboard, TrialRow, leaderboard, leaderboard_table
from app.evaluation.metrics import METRICS
from app.search.space import Value

ROWS = (
    TrialRow(trial=0, status="failed", hyperparameters={"depth": 9, "optimizer": "sgd"}, reason="loss is NaN [bold]"),
    TrialRow(trial=1, status="completed", value=0.7, epochs=9, parameters=1234, seconds=3.21,
             hyperparameters={"depth": 1, "optimizer": "adamw", "dropout": 0.1}),
    TrialRow(trial=2, status="running", hyperparameters={"depth": 1, "optimizer": "adamw"}),
    TrialRow(trial=3, status="pruned", value=0.9, epochs=1, hyperparameters={"depth": 2, "optimizer": "sgd"}),
    TrialRow(trial=4, status="paused", value=0.7, epochs=3, hyperparameters={"depth": 3, "optimizer": "adamw"}),
)  # fmt: skip


MIXED: tuple[Value, ...] = (1, "a", True)


def shown(board: pd.DataFrame, *, max_rows: int = 10, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(leaderboard_table(board, metric=METRICS["roc_auc"], max_rows=max_rows, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("metric", "order"), [("roc_auc", [3, 1, 4, 2, 0]), ("log_loss", [1, 4, 3, 2, 0])])
def test_best_comes_first_and_failed_last(metric: str, order: list[int]) -> None:
    assert list(leaderboard(ROWS, metric=METRICS[metric])["trial"]) == order
    assert list(leaderboard(ROWS[::-1], metric=METRICS[metric])["trial"]) == order


def test_a_failed_trial_is_last_even_with_a_value() -> None:
    failed = TrialRow(trial=9, status="failed", value=1.0, hyperparameters={}, reason="out of memory")
    board = leaderboard([failed, *ROWS], metric=METRICS["roc_auc"])
    assert list(board["trial"])[-2:] == [0, 9]
    assert board["reason"].iloc[-1] == "out of memory"


def test_hyperparameters_follow_the_fixed_columns_with_their_types() -> None:
    board = leaderboard(ROWS, metric=METRICS["roc_auc"])
    assert tuple(board.columns[:7]) == FIXED_COLUMNS
    assert set(board.columns[7:]) == {"depth", "optimizer", "dropout"}
    assert pd.api.types.is_integer_dtype(board["depth"])
    assert board["dropout"].isna().sum() == 4
    assert board["value"].isna().sum() == 2


def test_an_integer_that_is_not_always_active_stays_an_integer() -> None:
    rows = [
        TrialRow(trial=0, status="completed", value=0.5, hyperparameters={"width": 64}),
        TrialRow(trial=1, status="completed", value=0.4, hyperparameters={}),
    ]
    board = leaderboard(rows, metric=METRICS["roc_auc"])
    assert board["width"].iloc[0] == 64
    assert isinstance(board["width"].iloc[0].item(), int)
    assert board["width"].iloc[1] is pd.NA
    assert re.search(r"\bcompleted +-", shown(board))


def test_values_of_several_types_stay_as_they_are() -> None:
    rows = [
        TrialRow(trial=i, status="completed", value=-i, hyperparameters={"x": x}) for i, x in enumerate(MIXED)
    ]
    assert list(leaderboard(rows, metric=METRICS["roc_auc"])["x"]) == [1, "a", True]


def test_a_hyperparameter_called_like_a_column_gets_another_name() -> None:
    rows = [TrialRow(trial=0, status="completed", value=0.5, epochs=3, hyperparameters={"epochs": 7})]
    board = leaderboard(rows, metric=METRICS["roc_auc"])
    assert board["epochs"].iloc[0] == 3
    assert board["epochs (hyperparameter)"].iloc[0] == 7


def test_no_trials_give_an_empty_table() -> None:
    board = leaderboard([], metric=METRICS["roc_auc"])
    assert tuple(board.columns) == FIXED_COLUMNS
    assert "roc_auc" in shown(board)


def test_terminal_table_shows_what_tells_the_rows_apart() -> None:
    rows = [
        TrialRow(
            trial=i,
            status="completed",
            value=i / 10,
            parameters=12345,
            seconds=75,
            hyperparameters={"depth": i, "optimizer": "adamw"},
        )
        for i in range(4)
    ]
    text = shown(leaderboard(rows, metric=METRICS["roc_auc"]), max_rows=3)
    assert "depth" in text
    assert "optimizer" not in text
    assert "reason" not in text
    assert "12,345" in text
    assert "1 min 15 s" in text
    assert "and 1 more" in text
    assert len([line for line in text.splitlines() if "completed" in line]) == 3


def test_terminal_table_gives_the_reason_as_plain_text() -> None:
    text = shown(leaderboard(ROWS, metric=METRICS["roc_auc"]), width=160)
    assert "loss is NaN [bold]" in text


def test_terminal_table_shortens_a_long_reason_to_its_first_line() -> None:
    failed = TrialRow(trial=0, status="failed", hyperparameters={}, reason="x" * 500 + "\nTraceback")
    text = shown(leaderboard([failed], metric=METRICS["roc_auc"]), width=160)
    assert "x" * 59 + "…" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_table_keeps_the_hyperparameters_that_fit_in_one_line(width: int) -> None:
    rows = [
        TrialRow(
            trial=i, status="completed", value=0.1, hyperparameters={f"parameter_{k}": i for k in range(9)}
        )
        for i in (1, 2)
    ]
    text = shown(leaderboard(rows, metric=METRICS["roc_auc"]), width=width)
    (head,) = [line for line in text.splitlines() if "roc_auc" in line]
    assert "parameter_0" in head
    assert "parameter_8" not in head
    assert len(re.findall(r"parameter_\d", head)) == (2 if width == 80 else 5)
    assert len([line for line in text.splitlines() if "completed" in line]) == 2


def test_a_long_name_makes_room_for_the_short_ones_after_it() -> None:
    rows = [
        TrialRow(trial=i, status="completed", value=0.1, hyperparameters={"x" * 60: i, "depth": i}) for i in (1, 2)
    ]
    text = shown(leaderboard(rows, metric=METRICS["roc_auc"]), width=80)
    assert "depth" in text
    assert "xxx" not in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_fitted_leaderboard_is_as_wide_as_its_console_allows(width: int) -> None:
    values = {f"parameter_{k}": 1 for k in range(20)}
    rows = [
        TrialRow(trial=i, status="completed", value=0.1, hyperparameters={k: v + i for k, v in values.items()})
        for i in (1, 2)
    ]
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        board = leaderboard(rows, metric=METRICS["accuracy"])
        console.print(FittedLeaderboard(board=board, metric=METRICS["accuracy"]))
    head, *lines = (line.rstrip() for line in capture.get().splitlines())
    assert len(lines) == 2
    assert width - len("parameter_10") - 2 < max(map(len, [head, *lines])) <= width


def test_a_trial_without_a_network_has_no_weights() -> None:
    failed = TrialRow(trial=0, status="failed", hyperparameters={}, reason="no memory")
    assert re.search(r"0 +- +0 +- +0\.0 s +failed", shown(leaderboard([failed], metric=METRICS["accuracy"])))


def test_terminal_table_of_a_narrow_terminal_keeps_the_fixed_columns() -> None:
    assert "status" in shown(leaderboard(ROWS[1:2], metric=METRICS["roc_auc"]), width=60)


def test_measures_and_the_front_have_columns_of_their_own() -> None:
    rows = [
        TrialRow(trial=0, status="completed", value=0.9, hyperparameters={"depth": 1}, front=False, broken=0.5,
                 measures={"latency_ms": 7.5}),
        TrialRow(trial=1, status="completed", value=0.8, hyperparameters={"depth": 2}, front=True,
                 measures={"latency_ms": 1.25}),
        TrialRow(trial=2, status="failed", hyperparameters={"depth": 3}, front=False),
    ]  # fmt: skip
    board = leaderboard(rows, metric=METRICS["roc_auc"])
    assert list(board.columns[:4]) == ["trial", "value", "latency_ms", "front"]
    # The one that keeps the limits wins, whatever the value of the other.
    assert list(board["trial"]) == [1, 0, 2]
    assert board["latency_ms"].tolist()[:2] == [1.25, 7.5]
    text = shown(board)
    assert re.search(r"front", text)
    assert re.search(r"1\s+0\.8\s+1\.25\s+\*", text)
