"""An experiment that is prepared, told what to try and what is known, and then run, with two objectives and a limit."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

import tamiz
from app.search_progress import read_progress

SETTINGS = """
name = "species"
[search]
seconds = 0.0
trials = 4
algorithm = "random"
objective = "accuracy,latency"
limits = ["num_parameters<=20k"]
folds = 1
[training]
max_epochs = 4
"""

SMALL = {"depth": 1, "width": 16, "normalisation": "none"}
LARGE = {"depth": 4, "width": 512}


@pytest.fixture(scope="module")
def experiment(
    penguins: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tamiz.Experiment]:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "my.toml").write_text(SETTINGS)
    prepared = tamiz.prepare(
        penguins, target="species", run=folder / "species", config=folder / "my.toml", verbose=False
    )
    prepared.enqueue(SMALL)
    prepared.enqueue(LARGE)
    prepared.add_result({"width": 64}, 0.5)
    with prepared.run(view=tamiz.SilentView()) as found:
        yield found


def test_what_was_enqueued_is_tried_first(experiment: tamiz.Experiment) -> None:
    history = read_progress(experiment.directory).history
    assert history[1].hyperparameters.items() >= SMALL.items()
    assert history[2].hyperparameters.items() >= LARGE.items()


def test_a_result_from_elsewhere_is_no_trial_of_the_budget(experiment: tamiz.Experiment) -> None:
    board = experiment.leaderboard
    assert board["status"].tolist().count("added") == 1
    assert len(board) == 5


def test_a_network_over_the_limit_is_not_trained(experiment: tamiz.Experiment) -> None:
    trial = read_progress(experiment.directory).history[2]
    assert trial.measures["num_parameters"] > 20_000
    assert trial.epochs == 0
    assert experiment.leaderboard.set_index("trial")["status"][2] == "pruned"


def test_the_front_holds_the_fastest_and_the_best(experiment: tamiz.Experiment) -> None:
    board = experiment.leaderboard
    kept = board[(board["status"] == "completed") & (board["parameters"] <= 20_000)]
    front = board[board["front"]]
    assert set(front["trial"]) <= set(kept["trial"])
    assert kept["latency_ms"].min() == front["latency_ms"].min()
    assert kept["value"].max() == front["value"].max()


def test_the_winner_keeps_the_limit(experiment: tamiz.Experiment) -> None:
    progress = read_progress(experiment.directory)
    winner = progress.stages["final"]["trial"]
    assert progress.history[winner].measures["num_parameters"] <= 20_000
    assert experiment.saved_model.is_dir()
    measured = progress.stages["export"]["measures"]
    assert measured["latency_ms"] > 0
    assert measured["num_parameters"] <= 20_000
