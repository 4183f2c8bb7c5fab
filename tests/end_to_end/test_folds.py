"""A search by cross-validation, killed and resumed."""

from __future__ import annotations

import signal
from statistics import fmean, median
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tamiz
from app.ensemble_file import read_ensemble
from app.run_directory import RunDirectory

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


def test_what_is_exported_averages_the_networks_of_all_folds(folded: Any) -> None:
    run = folded[1].run
    decided = next(r["details"] for r in folded[1].journal if r["event"] == "stage" and r["stage"] == "ensemble")
    saved = read_ensemble(RunDirectory(run))
    assert len(saved.networks) == decided["networks"] == FOLDS * len(decided["members"]) > 0
    assert sum(network.weight for network in saved.networks) == pytest.approx(1.0)
    files = {f"members/{int(trial):04d}-fold-{fold}.keras" for trial in decided["members"] for fold in (1, 2, 3)}
    assert {network.file for network in saved.networks} == files
    assert {str(path.relative_to(run / "best")) for path in (run / "best" / "members").iterdir()} == files
    told = " ".join(folded[1].output.split())
    assert f"by the average of its {FOLDS} fold networks: out-of-fold accuracy" in told
    assert list(tamiz.load(run).test_report.baselines) == ["single", "constant", "linear"]
    page = (run / "report.html").read_text()
    assert "Exported model" in page
    assert "best single model" in page
