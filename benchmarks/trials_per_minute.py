"""How many trials a minute brings: tamiz and KerasTuner's BayesianOptimization over one space.

Measured: the trials that are completed within 60 seconds and the best validation value among them, on scikit-learn's
digits (1,797 rows, ten classes) and on a made table of 40,000 rows with numbers, categories and missing values.
The clock of each side starts when its process is warm: TensorFlow imported, rows encoded, no network trained. The
sides run one after the other and have the machine to themselves; a trial in flight at the end counts for neither.

The same for both: the space (`search_spaces.tabular.MLPSpace` for the same table), the encoded rows and their splits,
most epochs of a trial, early stopping after 10 epochs without a better value, and the metric: log_loss on all
validation rows, which both compute exactly and which has no ties, so that patience means the same. The value of a
trial is that of its best epoch on both sides.

    tamiz          `--algorithm bayesian`: suggestion, messages, training, state on disk every epoch, journal,
                   TensorBoard files.
    KerasTuner     `BayesianOptimization` with its defaults: suggestion, `fit` with the searched batch size, weights of
                   the best epoch and the trial's files on disk.

To reach, on both tables: at least 3 times the completed trials of KerasTuner, and a best value no worse.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from benchmark_tables import digits_table, mixed_table
from measurement import machine_line, verdict
from peer_process import keras_peer
from tamiz_search import OBJECTIVE, opened_search, prepare_run

from app.run_directory import RunDirectory, read_json

TARGET_RATIO = 3.0
PATIENCE = 10
EPOCHS = 10
TABLES: Mapping[str, Callable[[], pd.DataFrame]] = {"digits": digits_table, "40,000 mixed rows": mixed_table}


def search_with_tamiz(directory: RunDirectory, *, seconds: float, epochs: int) -> list[float]:
    """Returns the best loss of every trial that tamiz completes."""
    with opened_search(directory, max_epochs=epochs) as search:
        return search.run_for(seconds, algorithm="bayesian")


def search_with_keras_tuner(directory: RunDirectory, *, seconds: float, epochs: int) -> list[float]:
    """Returns the best loss of every trial that KerasTuner completes."""
    with keras_peer("search", directory=directory.path, epochs=epochs, seconds=seconds) as peer:
        return peer.search()


def compare(name: str, frame: pd.DataFrame, *, seconds: float, seed: int, epochs: int) -> None:
    """Searches one table with both sides and prints what came of it.

    Args:
        name: The table's.
        frame: The table.
        seconds: Time of each side.
        seed: Seed of splits and searches.
        epochs: Most epochs of a trial.
    """
    with tempfile.TemporaryDirectory(prefix="trials-per-minute-") as folder:
        directory = prepare_run(frame, path=Path(folder) / "run", seed=seed, patience=PATIENCE)
        rows = read_json(directory.manifest_file)["data"]["rows"]
        # A side alone keeps the load near the number of cores; more than that is somebody else's.
        busy = [machine_line()]
        ours = search_with_tamiz(directory, seconds=seconds, epochs=epochs)
        busy.append(machine_line())
        theirs = search_with_keras_tuner(directory, seconds=seconds, epochs=epochs)
        busy.append(machine_line())
    print(f"{name}: {rows['train']:,} training and {rows['validation']:,} validation rows, at most {epochs} epochs")
    print(f"  before, between and after: {'; '.join(busy)}")
    for side, losses in (("tamiz", ours), ("KerasTuner", theirs)):
        print(f"  {side:<12}{_line(losses, seconds)}")
    if not ours or not theirs:
        # No trial is no measurement: neither a ratio nor a best value to compare with.
        print("  not measured: a side completed no trial; give more --seconds, or a machine with less load", flush=True)
        return
    ratio = len(ours) / len(theirs)
    print(f"  ratio of trials {ratio:.2f}; at least {TARGET_RATIO:.0f}: {verdict(reached=ratio >= TARGET_RATIO)}")
    print(f"  best value no worse: {verdict(reached=min(ours) <= min(theirs))}", flush=True)


def _line(losses: list[float], seconds: float) -> str:
    if not losses:
        return f"{0:4d} trials in {seconds:g} s"
    spread = f"median {statistics.median(losses):.4f}, worst {max(losses):.4f}"
    return f"{len(losses):4d} trials in {seconds:g} s; best {OBJECTIVE} {min(losses):.4f} ({spread})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="15 seconds a side")
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each side on each table [default: 60]")
    parser.add_argument("--seed", type=int, default=42, help="seed of splits and searches [default: 42]")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="most epochs of a trial [default: 10]")
    parser.add_argument("--table", choices=list(TABLES), help="one table only [default: both]")
    arguments = parser.parse_args()
    for name, table in TABLES.items():
        if arguments.table in (None, name):
            seconds = 15.0 if arguments.quick else arguments.seconds
            compare(name, table(), seconds=seconds, seed=arguments.seed, epochs=arguments.epochs)


if __name__ == "__main__":
    main()
