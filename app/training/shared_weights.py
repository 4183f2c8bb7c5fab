"""The supernet of a search with shared weights: trained once, and asked what each cell is worth (TensorFlow)."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import tensorflow as tf

from app.search.algorithm import create
from app.search.ranked_cell import RankedCell
from app.search.space import Configuration, Space, Value
from app.search.trial import Completed, Ended, Fact, Failed, Reported, Started
from app.training.epochs import EpochResult, Report, Verdict
from app.training.network import Network
from app.training.trainer import HeldOut, Trainer
from app.training.trial_data import tensors
from search_spaces.cell import EDGES, edge_name
from search_spaces.supernet import SupernetSpace, path_of
from search_spaces.user_space import arrange, input_form

CALIBRATION_IMAGES = 256
"""Training images that the statistics of batches are measured on for every path: those of another path do not fit."""

RANKING_IMAGES = 1_000
"""Validation images that cells are ranked on."""

NUM_DRAWN = 50
"""Cells that are drawn at random before evolution begins; they show what cells of all kinds are worth."""

LEAST_CELLS = 6
"""Cells that are ranked even where there is no time."""

_BATCH = 10
"""Cells that evolution is asked for at once."""

_EDGE_NAMES = tuple(edge_name(edge) for edge in EDGES)


@final
class SharedWeights:
    """Trains a supernet and ranks cells by it.

    Args:
        trainer: Where the data and the objective are.
        values: Hyperparameters of a cell; all of them but the edges are those of the supernet.
        state: Folder of the resumable state.
        seed: Seed of weights, data order, paths and evolution.

    Attributes:
        epoch_seconds: What an epoch of the training took, the first one aside.
        graph_seconds: What the first one took beyond that.
    """

    def __init__(self, trainer: Trainer, *, values: Mapping[str, Value], state: Path, seed: int) -> None:
        data = trainer.data
        context = trainer.context(rows=data.balance.epoch_rows(data.training.num_rows, data.balance.of(values)))
        self._trainer, self._state, self._seed = trainer, state, seed
        self._values = state / "values.jsonl"
        self.epoch_seconds = self.graph_seconds = 0.0
        self._peak = float(values["learning_rate"])
        self._network = Network(
            SupernetSpace(context, seed=seed),
            # The rate follows the time, which no schedule in the graph can.
            values={**values, "optimizer": "adamw", "schedule": "constant"},
            part=trainer.part,
            context=context,
            strategy=tf.distribute.get_strategy(),
            seed=seed,
        )
        self._paths = self._network.model.get_layer("paths")
        rows = data.validation
        if rows.num_rows > RANKING_IMAGES:
            chosen = np.sort(np.random.default_rng(seed).permutation(rows.num_rows)[:RANKING_IMAGES])
            rows = rows.take(chosen)
        self._held_out = HeldOut(rows=rows, features=tensors(rows.features))
        self._calibrate: Callable[[], None] | None = None
        self._known: dict[tuple[int, ...], tuple[float, float]] = {}

    def train(self, *, epochs: int, until: float, report: Report, is_stopped: Callable[[], bool]) -> int:
        """Trains the supernet, from its saved state if it has one; returns the epochs trained.

        The learning rate falls from its peak to nothing as a cosine of the epochs, or of the time where that is
        shorter. The first epoch of all, which also pays for the graph, is cut rather than left out.

        Args:
            epochs: Most epochs.
            until: When it has to end, in seconds since the epoch; infinity for no limit.
            report: Receives every epoch.
            is_stopped: Asked between calls; true ends the training.
        """
        path = self._state / "current"
        curve = self._network.restore(path) if path.is_file() else []
        before = curve[-1].scalars["done"] if curve else 0.0
        if self._values.is_file():
            epochs = len(curve)  # the ranking has begun
        begin = math.inf

        def ask() -> Verdict:
            if is_stopped():
                return Verdict.STOP
            if time.time() < until:
                return Verdict.GO_ON
            return Verdict.STOP if curve else Verdict.ANSWER

        while len(curve) < epochs and (not curve or time.time() < until):
            start = time.time()
            in_time = max(0.0, start - begin) / (until - begin) if begin < until < math.inf else 0.0
            done = max(len(curve) / epochs, before + (1.0 - before) * in_time)
            rate = 0.5 * self._peak * (1.0 + math.cos(math.pi * done))
            self._network.model.optimizer.learning_rate = rate
            loss = self._network.train_epoch(len(curve), ask)
            if loss is None:
                # What is ranked is what an interrupted ranking goes on with.
                self._network.save(path, weights=self._network.weights(), curve=curve)
                break
            seconds = time.time() - start
            scalars = {"train/loss": loss, "learning_rate": rate, "seconds": seconds, "done": done}
            curve.append(EpochResult(epoch=len(curve) + 1, objective=loss, scalars=scalars))
            self._network.save(path, weights=self._network.weights(), curve=curve)
            report(curve[-1])
            # The first epoch of a session pays for the graph, and says nothing of how fast the others go.
            begin = time.time() if math.isinf(begin) else begin
        taken = [result.scalars["seconds"] for result in curve]
        self.epoch_seconds = statistics.median(taken[1:] or taken or [0.0])
        self.graph_seconds = max(0.0, taken[0] - self.epoch_seconds) if taken else 0.0
        return len(curve)

    def rank(
        self,
        space: Space,
        *,
        most: int,
        until: float,
        is_stopped: Callable[[], bool],
        num_drawn: int = NUM_DRAWN,
    ) -> list[RankedCell]:
        """Returns cells, the best first: some drawn at random, the others found by regularised evolution.

        Args:
            space: The space of cells.
            most: Most cells.
            until: When it has to end, in seconds since the epoch; some are ranked even if it has passed.
            is_stopped: Asked after every cell; true ends the ranking.
            num_drawn: Cells that are drawn.
        """
        self._known |= _kept(self._values)
        self._values.parent.mkdir(parents=True, exist_ok=True)
        self._values.write_text("".join(_line(*found) for found in self._known.items()), encoding="utf-8")
        edges = Space([replace(one, conditions=()) for one in space.parameters if one.name in _EDGE_NAMES])
        search = create("evolution", space=edges, seed=self._seed, max_epochs=1, max_trials=most)
        rng = np.random.default_rng(self._seed)
        search.enqueue([edges.default(), *(edges.sample(rng) for _ in range(num_drawn))])
        ranked: list[RankedCell] = []
        while suggestions := search.suggest(_BATCH):
            for suggestion in suggestions:
                if is_stopped() or (len(ranked) >= LEAST_CELLS and time.time() >= until):
                    return _in_order(ranked, self._trainer)
                facts: list[Fact] = [Started(suggestion)]
                value = self.value(suggestion.hyperparameters)
                if value is None or not all(map(math.isfinite, value)):
                    facts.append(Ended(suggestion.trial, Failed("the cell answers nothing, or nothing finite")))
                else:
                    loss = self._trainer.objective.to_loss(value[0])
                    facts += [Reported(suggestion.trial, 1, loss), Ended(suggestion.trial, Completed(loss))]
                    ranked.append(
                        RankedCell(
                            edges=dict(suggestion.hyperparameters),
                            objective=value[0],
                            loss=value[1],
                            is_drawn=suggestion.trial <= num_drawn,
                        )
                    )
                search.update(facts)
        return _in_order(ranked, self._trainer)

    def value(self, edges: Configuration) -> tuple[float, float] | None:
        """Returns objective and loss of a cell with the shared weights; None where no path leads through it."""
        path = path_of(edges)
        if not any(path):
            return None
        if path not in self._known:
            self._paths.fix(path)
            self._calibrated()
            judged = self._trainer.judge(self._network, self._held_out, epoch=1, loss=0.0)
            self._known[path] = (judged.objective, judged.scalars["val/loss"])
            with self._values.open("a", encoding="utf-8") as file:
                file.write(_line(path, self._known[path]))
        return self._known[path]

    def _calibrated(self) -> None:
        """Measures the statistics of batches along the path that is fixed, on unchanged training images."""
        if self._calibrate is None:
            self._calibrate = self._calibration()
        self._calibrate()

    def _calibration(self) -> Callable[[], None]:
        data, model = self._trainer.data, self._network.model
        for layer in model._flatten_layers(include_self=False):
            if hasattr(layer, "momentum"):
                # The statistics are those of the images at hand, with nothing of what was before.
                layer.momentum = 0.0
        rows = data.training
        chosen = np.sort(np.random.default_rng(self._seed).permutation(rows.num_rows)[:CALIBRATION_IMAGES])
        taken = tensors({name: array[chosen] for name, array in rows.features.items()})
        inputs = arrange(data.decoded(taken), input_form(model), self._trainer.context(rows=rows.num_rows))

        @tf.function(autograph=False)
        def calibrate() -> None:
            model(inputs, training=True)

        return lambda: calibrate()


def _kept(path: Path) -> dict[tuple[int, ...], tuple[float, float]]:
    """Returns what cells were worth before an interruption, by their paths; what a kill cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return {tuple(cell): (objective, loss) for cell, objective, loss in whole}


def _line(path: tuple[int, ...], value: tuple[float, float]) -> str:
    return json.dumps([path, *value]) + "\n"


def _in_order(ranked: list[RankedCell], trainer: Trainer) -> list[RankedCell]:
    """Returns cells, the best first; of those that compute the same, the first one."""
    paths = {path_of(cell.edges): cell for cell in reversed(ranked)}
    return sorted(paths.values(), key=lambda cell: (trainer.objective.to_loss(cell.objective), cell.loss))
