"""A search by shared weights, the worker and then the whole of which were killed while these were trained."""

from __future__ import annotations

import itertools
import signal
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tamiz
from app.run_directory import RunDirectory, read_json
from app.search_progress import read_progress
from app.shared_scores import STAGE, agreement_of, agreement_told, ranking_warning, shared_values


def test_a_killed_worker_leaves_its_work_to_another(shared_weights: Any) -> None:
    cut, _ = shared_weights
    assert cut.code == -signal.SIGKILL
    (replaced,) = [record for record in cut.journal if record["event"] == "worker_replaced"][:1]
    assert "the worker was killed by SIGKILL" in replaced["reason"]


def test_no_epoch_of_the_shared_weights_is_trained_twice(shared_weights: Any) -> None:
    _, resumed = shared_weights
    assert resumed.code == 0, resumed.errors
    epochs = [record["epoch"] for record in resumed.journal if record["event"] == "supernet_epoch"]
    assert all(first < second for first, second in itertools.pairwise(epochs))
    # Five times the epochs of a trial. What was saved just before a kill may not have been told of.
    assert epochs[0] == 1
    assert epochs[-1] <= 10
    directory = RunDirectory(resumed.run)
    shown = EventAccumulator(str(directory.supernet))
    shown.Reload()
    steps = [event.step for event in shown.Tensors("train/loss")]
    assert all(first < second for first, second in itertools.pairwise(steps))
    assert set(steps) <= set(epochs)


def test_the_best_cells_and_others_are_trained_by_themselves(shared_weights: Any) -> None:
    _, resumed = shared_weights
    directory = RunDirectory(resumed.run)
    ranking, progress = read_json(directory.supernet / "ranking.json"), read_progress(directory)
    assert ranking["epochs"] == progress.stages[STAGE]["epochs"] == 10
    values = [cell["value"] for cell in ranking["cells"]]
    assert len(values) > 50
    assert values == sorted(values, reverse=True)
    assert [progress.history[trial].hyperparameters for trial in range(3)] == [
        cell["hyperparameters"] for cell in progress.stages[STAGE]["cells"][:3]
    ]
    board = tamiz.load(resumed.run).leaderboard
    assert list(board["status"]) == ["completed"] * 3
    assert len(shared_values(progress)) == 3


def test_it_is_told_how_far_shared_weights_were_right(shared_weights: Any) -> None:
    _, resumed = shared_weights
    progress = read_progress(RunDirectory(resumed.run))
    agreement = agreement_of(progress)
    told = ranking_warning(progress)
    if agreement is not None:
        assert agreement.number == 3
        assert agreement_told(agreement) in told
    assert f"warning: {told}" in resumed.output
    assert "trained by themselves" in told or "rank 3 cells with a correlation of" in told
    assert told.split(" (")[0] in (resumed.run / "report.html").read_text()
