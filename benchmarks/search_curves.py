"""Validation value against epochs spent: tamiz against KerasTuner's Hyperband and Optuna, on real learning curves.

    python benchmarks/search_curves.py [--quick]          about 6 minutes on one core; --quick about 2

The curves are those of `data/curves.npz`: a grid of the mlp space trained completely by tamiz's own Trainer on two
real tables (`data/README.md` says how). Every searcher works on the same finite grid, so a configuration it asks for
is looked up exactly, and an epoch it asks for costs one epoch. One worker; a resumed trial pays only for the epochs it
adds, for KerasTuner too, although there it starts again with a fresh optimizer. Printed for each table and over all:

    regret   median over seeds of (best validation loss so far - best of the table) / (median of the table - best),
             after 1/10, 1/4, 1/2, 3/4 and all epochs, with the quartiles at the end
    share    of its epochs that tamiz's default needs to reach the median final loss of KerasTuner's Hyperband

To reach: a share of at most 0.50 on every table, and a mean regret over the tables no higher than that of full-budget
search (with and without stopping hopeless trials) at every epoch after the first tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

# Before NumPy is imported: on matrices this small, threads cost more than they bring, and far more on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measurement import verdict
from numpy.typing import NDArray

from app.search.algorithm import create
from app.search.space import Categorical, Space, Value
from app.search.trial import Completed, Ended, Paused, Pruned, Reported, Started

CURVES = Path(__file__).parent / "data" / "curves.npz"
DEFAULT = "asha"
PEER = "KerasTuner Hyperband"
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
TARGET_SHARE = 0.5
UNORDERED = ("normalisation", "schedule")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurveTable:
    """Learning curves of every configuration of a grid.

    Attributes:
        name: The table that was trained on.
        grid: Values of every parameter.
        losses: Validation losses (num_configurations, max_epochs), the last parameter changing fastest.
    """

    name: str
    grid: dict[str, list[Value]]
    losses: Array

    @property
    def max_epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.losses.shape[1])

    @cached_property
    def best(self) -> float:
        """The lowest loss of all."""
        return float(self.losses.min())

    @cached_property
    def median(self) -> float:
        """The loss that half of the configurations reach."""
        return float(np.median(self.losses.min(axis=1)))

    def curve(self, values: dict[str, Any]) -> Array:
        """The losses of one configuration after 1, 2 ... epochs."""
        place = [self.grid[name].index(values[name]) for name in self.grid]
        return np.asarray(self.losses[np.ravel_multi_index(place, [len(v) for v in self.grid.values()])])


def load_tables() -> list[CurveTable]:
    """Reads the curves."""
    with np.load(CURVES, allow_pickle=False) as stored:
        grid = json.loads(str(stored["grid"]))
        return [CurveTable(name, grid, np.float64(stored[name])) for name in stored.files if name != "grid"]


@final
class Spent:
    """Counts epochs and keeps the best loss after each; raises `Enough` when they are used up."""

    def __init__(self, epochs: int) -> None:
        self._left = epochs
        self.trace: list[float] = []

    def epoch(self, loss: float) -> None:
        """Spends an epoch that ended with this loss."""
        self.trace.append(min(loss, self.trace[-1]) if self.trace else loss)
        if len(self.trace) == self._left:
            raise Enough


class Enough(Exception):  # noqa: N818
    """All epochs are spent."""


Searcher = Callable[[CurveTable, int, Spent], None]


def tamiz(name: str, *, stops: bool = False) -> Searcher:
    """Tamiz's algorithm `name`; with `stops`, it is asked after each epoch whether the trial is hopeless."""

    def run(table: CurveTable, seed: int, spent: Spent) -> None:
        space = Space([Categorical(n, tuple(v), ordered=n not in UNORDERED) for n, v in table.grid.items()])
        algorithm = create(name, space=space, seed=seed, max_epochs=table.max_epochs)
        while suggestions := algorithm.suggest(1):
            suggestion = suggestions[0]
            trial, curve = suggestion.trial, table.curve(dict(suggestion.hyperparameters))
            algorithm.update([Started(suggestion)])
            outcome: Completed | Paused | Pruned = Paused(suggestion.budget)
            if suggestion.budget == table.max_epochs:
                outcome = Completed(float(curve.min()))
            for epoch in range(suggestion.start_epoch + 1, suggestion.budget + 1):
                spent.epoch(float(curve[epoch - 1]))
                algorithm.update([Reported(trial, epoch, float(curve[epoch - 1]))])
                if stops and epoch < suggestion.budget and algorithm.hopeless(trial):
                    outcome = Pruned(epoch)
                    break
            algorithm.update([Ended(trial, outcome)])

    return run


def keras_tuner(table: CurveTable, seed: int, spent: Spent) -> None:
    """KerasTuner's Hyperband, asked through the interface that its tuners use."""
    import keras_tuner as kt
    from keras_tuner.src.tuners.hyperband import HyperbandOracle

    hp = kt.HyperParameters()
    for name, values in table.grid.items():
        # Ordered choices are the default for numbers.
        hp.Choice(name, values)
    oracle = HyperbandOracle(
        kt.Objective("val_loss", "min"),
        max_epochs=table.max_epochs,
        hyperband_iterations=1000,
        # Zero means "random" there.
        seed=seed + 1,
        hyperparameters=hp,
    )
    oracle.verbose = 0
    with tempfile.TemporaryDirectory() as folder:
        oracle._set_project_dir(folder, "search")
        while (trial := oracle.create_trial("worker")).status == "RUNNING":
            values = trial.hyperparameters.values
            curve = table.curve(values)
            first, last = values["tuner/initial_epoch"], values["tuner/epochs"]
            for loss in curve[first:last]:
                spent.epoch(float(loss))
            # What its tuner reports: the best epoch of this visit.
            oracle.update_trial(trial.trial_id, {"val_loss": float(curve[first:last].min())})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def optuna_hyperband(table: CurveTable, seed: int, spent: Spent) -> None:
    """Optuna's TPE with its Hyperband pruner."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=table.max_epochs, reduction_factor=3),
    )
    while True:
        trial = study.ask()
        curve = table.curve({name: trial.suggest_categorical(name, values) for name, values in table.grid.items()})
        state = optuna.trial.TrialState.COMPLETE
        for epoch, loss in enumerate(curve, start=1):
            spent.epoch(float(loss))
            trial.report(float(loss), epoch)
            if epoch < len(curve) and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        best = None if state is optuna.trial.TrialState.PRUNED else float(curve.min())
        study.tell(trial, best, state=state)


SEARCHERS: dict[str, Searcher] = {
    f"tamiz {DEFAULT}": tamiz(DEFAULT, stops=True),
    "tamiz full budget": tamiz("bayesian"),
    "tamiz full, stopping": tamiz("bayesian", stops=True),
    "tamiz hyperband": tamiz("hyperband"),
    "random": tamiz("random"),
    PEER: keras_tuner,
    "Optuna TPE + Hyperband": optuna_hyperband,
}


def traces(searcher: Searcher, table: CurveTable, *, seeds: int, epochs: int) -> Iterator[Array]:
    """Yields the best loss after each epoch, one array (epochs,) a seed."""
    for seed in range(seeds):
        spent = Spent(epochs)
        with suppress(Enough):
            searcher(table, seed, spent)
        trace = np.array(spent.trace)
        yield np.append(trace, np.full(epochs - len(trace), trace[-1]))


def report(name: str, regrets: dict[str, Array]) -> None:
    """Prints the regrets (seeds, epochs) of every searcher."""
    print(f"{name}\n  {'':<24}" + "".join(f"{share:>9.0%}" for share in SHARES) + "   quartiles at the end")
    for searcher, regret in regrets.items():
        points = [regret[:, round(share * regret.shape[1]) - 1] for share in SHARES]
        low, high = np.quantile(points[-1], [0.25, 0.75])
        line = "".join(f"{np.median(point):>9.3f}" for point in points)
        print(f"  {searcher:<24}{line}   {low:.3f} - {high:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="3 seeds instead of 10")
    parser.add_argument("--epochs", type=int, default=540, help="epochs to spend; 540 are 20 full trainings")
    parser.add_argument("--only", nargs="+", default=list(SEARCHERS), metavar="SEARCHER", help="names as printed")
    arguments = parser.parse_args()
    tables, epochs, seeds = load_tables(), arguments.epochs, 3 if arguments.quick else 10
    print(f"{epochs} epochs, {seeds} seeds, {len(tables)} tables of {len(tables[0].losses)} configurations")
    medians: dict[str, list[Array]] = {name: [] for name in arguments.only}
    shares = []
    for table in tables:
        losses = {
            name: np.array(list(traces(SEARCHERS[name], table, seeds=seeds, epochs=epochs))) for name in arguments.only
        }
        scale = table.median - table.best
        regrets = {name: (of - table.best) / scale for name, of in losses.items()}
        report(table.name, regrets)
        for name, regret in regrets.items():
            medians[name].append(np.median(regret, axis=0))
        if {PEER, f"tamiz {DEFAULT}"} <= set(losses):
            ours, theirs = (medians[name][-1] for name in (f"tamiz {DEFAULT}", PEER))
            reached = np.flatnonzero(ours <= theirs[-1])
            shares.append((reached[0] + 1) / epochs if len(reached) else np.inf)
            print(f"  share of epochs until KerasTuner's final value: {shares[-1]:.2f}")
    mean = {name: np.mean(of, axis=0) for name, of in medians.items()}
    report("mean of the tables' medians", {name: of[None, :] for name, of in mean.items()})
    if shares:
        print(f"share at most {TARGET_SHARE:.2f} on every table: {verdict(reached=max(shares) <= TARGET_SHARE)}")
    for name in ("tamiz full budget", "tamiz full, stopping"):
        if {name, f"tamiz {DEFAULT}"} <= set(mean):
            gap = mean[f"tamiz {DEFAULT}"] - mean[name]
            behind = epochs // 10 + np.flatnonzero(gap[epochs // 10 :] > 0.0)
            where = ""
            if len(behind):
                where = f", by {gap[behind].max():.3f} at most, from epoch {behind[0] + 1} to {behind[-1] + 1}"
            share = len(behind) / (epochs - epochs // 10)
            reached = verdict(reached=not len(behind))
            print(f"behind '{name}' at {share:.0%} of the epochs after the first tenth{where}: {reached}")


if __name__ == "__main__":
    main()
