"""`tamiz.search`: the command line's main job as a function."""

from __future__ import annotations

import contextlib
import time as clock
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
from rich.console import Console

from app.arguments import SearchArguments, experiment_config
from app.execution.local_executor import LocalExecutor
from app.experiment import Experiment, launch
from app.view import ConsoleView, SilentView


def search(
    data: str | Path | pd.DataFrame | pa.Table,
    *,
    target: str,
    time: str = "",
    trials: int = 0,
    run: str | Path | None = None,
    space: str = "",
    algorithm: str = "",
    objective: str = "",
    features: Mapping[str, str] | None = None,
    folds: int | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    verbose: bool = True,
) -> Experiment:
    """Searches, trains, tests, exports and verifies a model for a table.

    Args:
        data: A file (.csv, .tsv, .txt, each also .gz; .parquet) or a table in memory.
        target: Column to predict.
        time: Wall-clock budget of everything, such as ``"5m"``; without it and without `trials`, 10 minutes.
        trials: Number of trials; 0 for no limit.
        run: Run directory; by default ``runs/<name>``, numbered if that is taken.
        space: ``mlp`` (the default), ``resnet`` or ``module:build``.
        algorithm: ``auto`` (the default), ``random``, ``grid``, ``bayesian`` or ``hyperband``.
        objective: Validation metric to select by; the task's own by default.
        features: Column -> kind that overrides a guess; ``ignore`` drops the column.
        folds: Folds of the cross-validation that judges trials; 1 judges them on the validation rows; by default small
            tables get folds where the time allows it.
        seed: Seed of every random choice; 42 by default.
        config: TOML file with further settings; arguments here win.
        verbose: Whether to print what happens.

    Raises:
        DataError: The data cannot be used.
        TamizError: A setting, the run directory, the search or the export is at fault.
    """
    started = clock.time()
    in_memory = isinstance(data, (pd.DataFrame, pa.Table))
    settings = experiment_config(
        SearchArguments(
            source="" if in_memory else str(data),
            target=target,
            time=time,
            trials=trials,
            space=space,
            algorithm=algorithm,
            objective=objective,
            features=tuple(f"{name}={kind}" for name, kind in (features or {}).items()),
            folds=folds,
            seed=seed,
        ),
        file=None if config is None else Path(config),
    )
    path = Path(run) if run is not None else _free_place(Path("runs") / settings.name)
    view = ConsoleView(Console()) if verbose else SilentView()
    with contextlib.closing(LocalExecutor()) as executor:
        return launch(data, settings, path=path, executor=executor, view=view, started=started)


def _free_place(path: Path) -> Path:
    number = 1
    place = path
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}-{number}")
    return place
