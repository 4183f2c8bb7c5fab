"""One network with the weights of all cells: trained a path a step, taken up again, and asked what cells are worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import DataConfig, ExperimentConfig, SearchConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.evaluation.metrics import METRICS
from app.run_directory import RunDirectory
from app.search.warm_start import filled
from app.training.declaration import declare
from app.training.shared_weights import LEAST_CELLS, SharedWeights
from app.training.trainer import Trainer
from app.training.trial_data import load_trial_data
from pipelines.balance import Balance
from search_spaces.cell import EDGES, edge_name
from search_spaces.supernet import path_of

DEAD = {edge_name(edge): "none" for edge in EDGES}


@pytest.fixture(scope="module", name="trainer")
def trainer_fixture(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory, placement: Any) -> Trainer:
    config = ExperimentConfig(
        name="digits", data=DataConfig(source=str(digit_folder), target="label"), search=SearchConfig(space="cell")
    )
    directory = RunDirectory(tmp_path_factory.mktemp("run") / "digits")
    directory.path.mkdir()
    write_data(prepare_data(read_source(digit_folder, config), config), config, directory=directory)
    return Trainer(
        load_trial_data(directory, balance=Balance.AUTO),
        space_name="cell",
        objective=METRICS["accuracy"],
        placement=placement,
        max_epochs=3,
        patience=10,
    )


def test_a_supernet_is_trained_taken_up_again_and_ranks_cells(trainer: Trainer, tmp_path: Path) -> None:
    space = declare(trainer.space())
    values = filled({"width": 8, "cells_per_stage": 1, "batch_size": 16, "learning_rate": 4e-3}, space=space)
    shared = SharedWeights(trainer, values=values, state=tmp_path, seed=5)
    epochs: list[Any] = []
    going: dict[str, Any] = {"until": math.inf, "report": epochs.append, "is_stopped": lambda: False}
    assert shared.train(epochs=2, **going) == 2
    assert [result.epoch for result in epochs] == [1, 2]
    assert epochs[0].scalars["learning_rate"] == pytest.approx(4e-3)
    assert epochs[1].scalars["learning_rate"] == pytest.approx(2e-3)
    # What was trained is on disk: the same seed at the same place has nothing left to do.
    before = [np.asarray(variable) for variable in shared._network.model.variables]
    for variable in shared._network.model.trainable_variables:
        variable.assign(variable * 0.0)
    assert shared.train(epochs=2, **going) == 2
    assert len(epochs) == 2
    for old, new in zip(before, shared._network.model.variables, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
    ranked = shared.rank(space, most=20, num_drawn=12, until=math.inf, is_stopped=lambda: False)
    assert [(-cell.objective, cell.loss) for cell in ranked] == sorted((-cell.objective, cell.loss) for cell in ranked)
    assert len({path_of(cell.edges) for cell in ranked}) == len(ranked) > 12 // 2
    assert {cell.is_drawn for cell in ranked} == {True, False}
    # A ranking does not change what it ranks: asked anew, a cell is worth the same.
    shared._known.clear()
    assert list(shared.value(ranked[0].edges) or ()) == pytest.approx([ranked[0].objective, ranked[0].loss], rel=1e-4)
    assert shared.value(DEAD) is None
    # All of them in one graph.
    assert shared._network._evaluate.experimental_get_tracing_count() == 1

    # What was ranked before an interruption is not asked again, and cuts no cell off the rest.
    with (tmp_path / "values.jsonl").open("a") as file:
        file.write("[[1, 2")
    for variable in shared._network.model.trainable_variables:
        variable.assign(variable * 0.0)
    shared._known.clear()
    again = shared.rank(space, most=20, num_drawn=12, until=math.inf, is_stopped=lambda: False)
    assert [(cell.edges, cell.objective) for cell in again] == [(cell.edges, cell.objective) for cell in ranked]
    assert shared.train(epochs=9, **going) == 2
    assert shared.epoch_seconds > 0.0
    late = shared.rank(space, most=20, num_drawn=12, until=0.0, is_stopped=lambda: False)
    assert 0 < len(late) <= LEAST_CELLS < len(ranked)

    # Without time, there is no more than the first epoch of all, which is cut where a call has fewer steps than it.
    shared._state = tmp_path / "late"
    shared._values = shared._state / "values.jsonl"
    before = int(shared._network.model.optimizer.iterations)
    assert shared.train(epochs=3, **{**going, "until": 0.0}) == 1
    assert 0 < int(shared._network.model.optimizer.iterations) - before <= trainer.data.training.num_rows // 16
