"""A search by cross-validation, killed and resumed."""

from __future__ import annotations

import signal
from statistics import fmean, median
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tamiz

FOLDS, EPOCHS = 3, 4


def test_a_killed_search_goes_on_and_says_how_trials_are_judged(folded: Any) -> None:
    cut, resumed = folded
    assert cut.code == -signal.SIGKILL
    assert "3 folds of the training and validation rows: as asked" in cut.output
    assert resumed.code == 0, resumed.errors
    assert "std. error" in resumed.output
    assert "by cross-validation in 3 folds" in (resumed.run / "report.html").read_text()
    card = next((resumed.run / "export" / "penguins" / "1").rglob("model_card.md")).read_text()
    assert "judged by cross-validation in 3 folds" in card


def test_every_fold_is_in_the_journal_once_with_the_mean_so_far(folded: Any) -> None:
    _, resumed = folded
    reported = [record for record in resumed.journal if record["event"] == "reported"]
    assert [(r["trial"], r["epoch"]) for r in reported] == [(t, f) for t in range(2) for f in range(1, FOLDS + 1)]
    values = [[r["scalars"]["fold/value"] for r in reported if r["trial"] == trial] for trial in range(2)]
    for trial, of_folds in enumerate(values):
        means = [r["scalars"]["val/accuracy"] for r in reported if r["trial"] == trial]
        assert means == [fmean(of_folds[: count + 1]) for count in range(FOLDS)]


def test_the_winner_is_trained_for_the_median_of_the_best_epochs(folded: Any) -> None:
    _, resumed = folded
    final = next(r["details"] for r in resumed.journal if r["event"] == "stage" and r["stage"] == "final")
    best = [
        r["scalars"]["fold/best_epoch"]
        for r in resumed.journal
        if r["event"] == "reported" and r["trial"] == final["trial"]
    ]
    assert final["wanted_epochs"] == median(best)


def test_the_leaderboard_has_the_spread_over_the_folds(folded: Any) -> None:
    board = tamiz.load(folded[1].run).leaderboard
    assert list(board["folds"]) == [FOLDS] * 2
    assert (board["spread"] >= 0.0).all()
    assert list(board["epochs"]) == [FOLDS * EPOCHS] * 2


def test_tensorboard_has_every_epoch_of_every_fold_once(folded: Any) -> None:
    for trial in range(2):
        events = EventAccumulator(str(folded[1].run / "trials" / f"{trial:04d}"))
        events.Reload()
        assert [event.step for event in events.Tensors("val/accuracy")] == [1, 2, 3]
        for fold in range(1, FOLDS + 1):
            assert [event.step for event in events.Tensors(f"val/loss/fold_{fold}")] == [1, 2, 3, 4]
