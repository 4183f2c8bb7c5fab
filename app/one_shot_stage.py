"""Search with shared weights: a supernet is trained once, cells are ranked by it, and the best are tried first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from app.config import ExperimentConfig, SearchConfig
from app.errors import ConfigError, WorkerError
from app.evaluation.number_text import number_text, seconds_text
from app.execution.executor import Answering
from app.execution.messages import CellsRanked, EpochEnded, RankCells, RunOpened
from app.run_directory import write_json
from app.search.algorithm import Algorithm
from app.search.warm_start import filled
from app.search_record import SearchRecord
from app.shared_scores import ONE_SHOT, STAGE, chosen_cells
from app.tensorboard import TrialEventWriter
from app.view import View

CELL_SPACE = "cell"

TRAIN_SHARE, RANK_SHARE = 0.25, 0.08
"""Of the whole time, that the supernet is trained for and that cells are ranked for."""

EPOCHS_OF_A_TRIAL = 5
"""Epochs of the supernet, in those of a trial: an operation is in one step of five, and is then trained as long as in a
trial."""

MOST_CELLS, MOST_WITHOUT_CLOCK = 2_000, 300
"""Cells that are ranked at most, where the time ends the ranking and where nothing else does."""

NUM_BEST, NUM_SPREAD, NUM_FURTHER = 3, 3, 20
"""Cells that are trained by themselves: the best, some of all ranks between them, and after these the next best."""


def check_one_shot(config: ExperimentConfig) -> None:
    """Checks that a search with shared weights has the space for it.

    Raises:
        ConfigError: It has another.
    """
    if config.search.algorithm == ONE_SHOT and config.search.space not in (CELL_SPACE, SearchConfig().space):
        raise ConfigError(
            f"the algorithm {ONE_SHOT!r} shares weights between the networks of --space {CELL_SPACE}, and the space is "
            f"{config.search.space!r}: give --space {CELL_SPACE}, or another algorithm, such as --algorithm bayesian"
        )


def rank_cells(
    executor: Answering,
    *,
    algorithm: Algorithm,
    config: ExperimentConfig,
    opened: RunOpened,
    record: SearchRecord,
    view: View,
) -> None:
    """Has a supernet trained and cells ranked by it, where that is asked for; the best are wanted first from then on.

    Args:
        executor: Asks a worker for it; what is done is taken up again after an interruption.
        algorithm: Is told what is wanted.
        config: The settings.
        opened: Knows a recipe to train with.
        record: Writes down what was ranked.
        view: Shows what happens.
    """
    search = record.progress.search
    if search is None or search.algorithm != ONE_SHOT or STAGE in record.progress.stages:
        return
    seconds = config.search.seconds or math.inf
    told = f"for up to {seconds_text(TRAIN_SHARE * seconds)}" if math.isfinite(seconds) else "until all epochs are done"
    view.say(f"Training one network with all cells, a path a step, {told} …")
    values = filled(dict(opened.portfolio[0]) if opened.portfolio else {}, space=algorithm.space)
    board = TrialEventWriter(record.directory.supernet)

    def show(event: EpochEnded) -> None:
        board.scalars(event.epoch, event.scalars, wall_time=event.wall_time)

    reply = executor.call(
        RankCells(
            hyperparameters=values,
            space=algorithm.space,
            epochs=EPOCHS_OF_A_TRIAL * search.max_epochs,
            train_seconds=TRAIN_SHARE * seconds,
            rank_seconds=RANK_SHARE * seconds,
            most=MOST_CELLS if math.isfinite(seconds) else MOST_WITHOUT_CLOCK,
        ),
        on_epoch=show,
    )
    board.close()
    if not isinstance(reply, CellsRanked):
        raise WorkerError(f"the worker answered {type(reply).__name__}: expected CellsRanked")
    cells: list[dict[str, Any]] = [
        {
            "hyperparameters": {**values, **cell.edges},
            "value": cell.objective,
            "loss": cell.loss if math.isfinite(cell.loss) else None,
            "drawn": cell.is_drawn,
        }
        for cell in reply.cells
    ]
    write_json(record.directory.supernet / "ranking.json", {"epochs": reply.epochs, "cells": cells})
    chosen = chosen_cells(cells, best=NUM_BEST, spread=NUM_SPREAD)
    further = [place for place in range(len(cells)) if place not in chosen][:NUM_FURTHER]
    wanted = [{**cells[place], "rank": place + 1} for place in [*chosen, *further]]
    configurations = [dict(cell["hyperparameters"]) for cell in wanted]
    record.portfolio([*record.progress.portfolio, *configurations])
    record.stage_done(
        STAGE, epochs=reply.epochs, seconds=round(reply.seconds, 1), ranked=len(cells), cells=wanted
    )
    algorithm.enqueue(configurations)
    best = number_text(cells[0]["value"])
    view.say(
        f"{len(cells):,} cells ranked by weights shared for {reply.epochs:,} epochs, {record.objective.name} up to "
        f"{best}; the best and {len(chosen) - min(NUM_BEST, len(cells))} of other ranks are now trained by themselves."
    )


def with_cells(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the settings with the space of cells where shared weights are asked for and no space is."""
    if config.search.algorithm != ONE_SHOT or config.search.space != SearchConfig().space:
        return config
    return replace(config, search=replace(config.search, space=CELL_SPACE))
