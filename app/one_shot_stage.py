"""Search with shared weights: a supernet is trained once, cells are ranked by it, and the best are tried first."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from typing import Any

from app.config import ExperimentConfig, SearchConfig
from app.errors import ConfigError, SearchError, WorkerError, WorkerLostError
from app.evaluation.number_text import number_text, seconds_text
from app.execution.executor import Answering
from app.execution.messages import CellsRanked, EpochEnded, RankCells, RunOpened, WorkerReplaced
from app.run_directory import write_json
from app.search.algorithm import Algorithm
from app.search.space import Configuration, Space
from app.search.warm_start import filled
from app.search_record import SearchRecord
from app.shared_scores import ONE_SHOT, STAGE, chosen_cells
from app.tensorboard import TrialEventWriter
from app.time_budget import TimeBudget
from app.view import View
from search_spaces.network_size import EPOCH_SHARE

CELL_SPACE = "cell"

TRAIN_SHARE, RANK_SHARE = 0.35, 0.43
"""Of the time from the start to what comes last, after which the supernet has been trained, and cells ranked."""

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
    opened: RunOpened,
    record: SearchRecord,
    budget: TimeBudget,
    view: View,
) -> None:
    """Has a supernet trained and cells ranked by it, where that is asked for; the best are wanted first from then on.

    Args:
        executor: Asks a worker for it; what is done is taken up again after an interruption.
        algorithm: Is told what is wanted.
        opened: Knows a recipe to train with.
        record: Writes down what was ranked.
        budget: Time for everything.
        view: Shows what happens.

    Raises:
        WorkerError: A worker could not do it, or two were lost over it.
    """
    search = record.progress.search
    if search is None or search.algorithm != ONE_SHOT or STAGE in record.progress.stages:
        return
    space = algorithm.space
    values = filled(dict(opened.portfolio[0]) if opened.portfolio else {}, space=space)
    seconds = record.directory.read_config().search.seconds
    train_until, rank_until = (_passed(share, budget, seconds=seconds) for share in (TRAIN_SHARE, RANK_SHARE))
    request = RankCells(
        hyperparameters=values,
        space=space,
        epochs=EPOCHS_OF_A_TRIAL * search.max_epochs,
        train_until=train_until,
        rank_until=rank_until,
        most=MOST_CELLS if seconds else MOST_WITHOUT_CLOCK,
    )
    told = f"for up to {seconds_text(max(0.0, train_until - time.time()))}" if seconds else "until all epochs are done"
    view.say(f"Training one network with all cells, a path a step, {told} …")
    reply = _ranked(executor, request, record=record, view=view)
    values = with_fitting_share(
        values,
        space=space,
        epoch_seconds=search.max_epochs * reply.epoch_seconds,
        other_seconds=reply.graph_seconds,
        left=budget.left() - budget.finishing - budget.rebuilding * reply.graph_seconds,
    )
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
    record.stage_done(STAGE, epochs=reply.epochs, seconds=round(reply.seconds, 1), ranked=len(cells), cells=wanted)
    algorithm.enqueue(configurations)
    view.say(
        f"{len(cells):,} cells ranked by weights shared for {reply.epochs:,} epochs, {record.objective.name} up to "
        f"{number_text(cells[0]['value'])}; the best and {len(chosen) - min(NUM_BEST, len(cells))} of other ranks are "
        f"now trained by themselves."
    )


def _ranked(executor: Answering, request: RankCells, *, record: SearchRecord, view: View) -> CellsRanked:
    """Returns what a worker answers; where it is lost, another goes on from what it had saved, once."""
    with contextlib.closing(TrialEventWriter(record.directory.supernet)) as board:

        def show(event: EpochEnded) -> None:
            record.supernet_epoch(event)
            board.scalars(event.epoch, event.scalars, wall_time=event.wall_time)

        try:
            reply = executor.call(request, on_epoch=show)
        except WorkerLostError as error:
            record.worker_replaced(WorkerReplaced(worker="", reason=str(error)))
            view.say(f"warning: {error}; another goes on from what it had saved.")
            reply = executor.call(request, on_epoch=show)
    if not isinstance(reply, CellsRanked):
        raise WorkerError(f"the worker answered {type(reply).__name__}: expected CellsRanked")
    if not reply.cells:
        raise SearchError("no cell could be ranked: the shared weights answer nothing, or nothing finite, for any")
    return reply


def _passed(share: float, budget: TimeBudget, *, seconds: float) -> float:
    """Returns when a share of the time has passed, but for what comes last, in seconds since the epoch."""
    if not seconds:
        return math.inf
    return budget.end - seconds + share * (seconds - budget.finishing)


def with_fitting_share(
    values: Configuration, *, space: Space, epoch_seconds: float, other_seconds: float, left: float
) -> Configuration:
    """Returns hyperparameters with the largest share of the epochs at which enough cells are trained in time.

    Args:
        values: Hyperparameters of a cell.
        space: The space of cells.
        epoch_seconds: All epochs of a training.
        other_seconds: What a training takes beside them.
        left: Seconds that there are; infinity changes nothing.
    """
    if EPOCH_SHARE not in space or math.isinf(left):
        return values
    # The winner is trained once more.
    number = NUM_BEST + NUM_SPREAD + 1
    shares = sorted(float(space[EPOCH_SHARE].nth(place)) for place in range(space[EPOCH_SHARE].num_values or 0))
    fitting = [share for share in shares if number * (other_seconds + share * epoch_seconds) <= left]
    return {**values, EPOCH_SHARE: (fitting or shares[:1])[-1]}


def with_cells(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the settings with the space of cells where shared weights are asked for and no space is."""
    if config.search.algorithm != ONE_SHOT or config.search.space != SearchConfig().space:
        return config
    return replace(config, search=replace(config.search, space=CELL_SPACE))
