"""How much of a known Pareto front a search finds: tamiz, random search, and Optuna's samplers for several objectives.

A space of 600 configurations with a loss and a latency that conflict; its exact front (36 configurations) is known by
enumeration. Printed: the share of the exact front's hypervolume that is missed after 30 and 60 trials (mean over
seeds), and the ratio to Optuna's TPE. Optuna's samplers are left out when it is not installed.

Takes about 3 minutes on one core; `--quick` (2 seeds) under one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import warnings
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from measurement import machine_line  # noqa: E402

from app.search.algorithm import Algorithm, Recipe  # noqa: E402
from app.search.pareto import hypervolume, is_undominated  # noqa: E402
from app.search.space import Boolean, Categorical, Configuration, Int, Space  # noqa: E402
from app.search.trial import Completed, Ended, Measured, Started  # noqa: E402

CHECKPOINTS = (30, 60)
SPACE = Space([Int("a", 0, 9), Int("b", 0, 9), Categorical("k", ("x", "y", "z")), Boolean("s")])
Points = list[tuple[float, float]]


def measured(configuration: Configuration) -> tuple[float, float]:
    """Loss and latency: large `a` is good and slow, `s` is quick and a little worse."""
    a, b, kind = int(configuration["a"]) / 9, int(configuration["b"]) / 9, str(configuration["k"])
    loss = 0.1 + 0.7 * (1 - a) ** 2 + 0.5 * (b - 0.5) ** 2 + {"x": 0.0, "y": 0.15, "z": 0.3}[kind]
    latency = 2 + 10 * a**2 + 4 * abs(b - 0.2) + {"x": 3.0, "y": 1.0, "z": 0.0}[kind]
    quick = bool(configuration["s"])
    return loss + 0.1 * quick, latency - quick


def tamiz(name: str, *, batch: int = 1) -> Callable[[int], Points]:
    """A search with one of our algorithms; `batch` suggestions at once."""

    def search(seed: int) -> Points:
        recipe = Recipe(name=name, space=SPACE, seed=seed, max_epochs=1, objectives=("latency_ms",))
        algorithm = Algorithm(recipe)
        points: Points = []
        while len(points) < max(CHECKPOINTS):
            for suggestion in algorithm.suggest(batch):
                loss, latency = measured(suggestion.hyperparameters)
                number = suggestion.trial
                algorithm.update(
                    [Started(suggestion), Measured(number, {"latency_ms": latency}), Ended(number, Completed(loss))]
                )
                points.append((loss, latency))
        return points

    return search


def optuna(name: str) -> Callable[[int], Points]:
    """A search with one of Optuna's samplers that know several objectives."""
    library = importlib.import_module("optuna")
    library.logging.set_verbosity(library.logging.ERROR)

    def search(seed: int) -> Points:
        points: Points = []

        def objective(trial: object) -> tuple[float, float]:
            configuration = {
                "a": trial.suggest_int("a", 0, 9),  # type: ignore[attr-defined]
                "b": trial.suggest_int("b", 0, 9),  # type: ignore[attr-defined]
                "k": trial.suggest_categorical("k", ["x", "y", "z"]),  # type: ignore[attr-defined]
                "s": trial.suggest_categorical("s", [False, True]),  # type: ignore[attr-defined]
            }
            points.append(measured(configuration))
            return points[-1]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = getattr(library.samplers, name)(seed=seed)
            study = library.create_study(directions=["minimize", "minimize"], sampler=sampler)
            study.optimize(objective, n_trials=max(CHECKPOINTS))
        return points

    return search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 seeds instead of 8")
    num_seeds = 2 if parser.parse_args().quick else 8
    everything = np.array([measured(configuration) for configuration in SPACE.enumerate()])
    worst = 1.05 * everything.max(axis=0)
    exact = hypervolume(everything, worst)
    engines = {name: tamiz(name) for name in ("random", "bayesian", "tpe", "evolution")}
    engines["bayesian, 8 at once"] = tamiz("bayesian", batch=8)
    try:
        engines |= {f"Optuna {name}": optuna(f"{name}Sampler") for name in ("TPE", "NSGAII")}
    except ModuleNotFoundError:
        print("Optuna is not installed: left out")
    print(machine_line())
    print(f"{len(everything)} configurations, {is_undominated(everything).sum()} on the front; {num_seeds} seeds")
    print(f"{'share of the volume missed':28}" + "".join(f"{f'@{num}':>9}" for num in CHECKPOINTS))
    missed: dict[str, list[float]] = {}
    for name, search in engines.items():
        runs = [np.array(search(seed)) for seed in range(num_seeds)]
        missed[name] = [
            float(np.mean([1.0 - hypervolume(points[:num], worst) / exact for points in runs])) for num in CHECKPOINTS
        ]
        print(f"{name:28}" + "".join(f"{share:9.4f}" for share in missed[name]), flush=True)
    if "Optuna TPE" in missed:
        ratios = [ours / theirs for ours, theirs in zip(missed["bayesian"], missed["Optuna TPE"], strict=True)]
        print(f"{'bayesian / Optuna TPE':28}" + "".join(f"{ratio:9.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
