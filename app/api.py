"""`tamiz.search`: the command line's main job as a function."""

from __future__ import annotations

import contextlib
import os
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from app.arguments import Changes, DataArguments, ExecutionArguments, SearchArguments, experiment_config
from app.config import ExperimentConfig, ForecastConfig
from app.data_source import looking_up, source_of
from app.execution.executors import make_executor
from app.experiment import Experiment, begin, launch
from app.experiment import prepare as prepare_data
from app.experiment import resume as resume_run
from app.quantities import parse_duration
from app.view import ConsoleView, SilentView, View
from pipelines.sources import DataLike, Origin, Source, open_source, with_joins


def search(
    data: DataLike | Origin,
    *,
    target: str = "",
    time: str = "",
    trials: int = 0,
    run: str | Path | None = None,
    space: str = "",
    algorithm: str = "",
    objective: str = "",
    features: Mapping[str, str] | None = None,
    weight: str = "",
    balance: str = "",
    feature_groups: str | Sequence[str] = (),
    store: str | Path = "",
    time_column: str = "",
    embargo: str = "",
    forecast: ForecastConfig | None = None,
    interval: float = 0.0,
    quantiles: Sequence[float] = (),
    folds: int | None = None,
    ensemble: int | None = None,
    limits: str | Sequence[str] = (),
    start_from: str | Path | Sequence[str | Path] = (),
    backbone: str | Path = "",
    workers: int = 0,
    seed: int | None = None,
    config: str | Path | None = None,
    verbose: bool = True,
) -> Experiment:
    """Searches, trains, tests, exports and verifies a model for a table.

    Args:
        data: Files, folders, patterns or URLs (CSV, Parquet, Arrow, JSON lines, Excel, NumPy, TFRecord; see
            docs/sources.md), ``tfds:NAME/CONFIG``, a DataFrame, an Arrow table, a function that returns a
            tf.data.Dataset, or an `Origin` for the rest: a query to a database, joins.
        target: Column to predict; a folder with a folder for each class of images needs none.
        time: Wall-clock budget of everything, such as ``"5m"``; without it and without `trials`, 10 minutes.
        trials: Number of trials; 0 for no limit.
        run: Run directory; by default ``runs/<name>``, numbered if that is taken.
        space: ``tabular`` (the default: all families), one of its families such as ``mlp``, or ``module:build``.
        algorithm: ``auto`` (the default), ``random``, ``grid``, ``bayesian``, ``tpe``, ``evolution``, ``asha``,
            ``hyperband``, ``bohb``, a scheduler and a sampler such as ``asha+random``, or ``one-shot`` for cells.
        objective: Validation metric to select by; the task's own by default. After commas, what else is wanted, such
            as ``"roc_auc,latency"``.
        features: Column -> kind that overrides a guess; ``ignore`` drops the column.
        weight: Column that says how much a row counts, in the loss and in all metrics.
        balance: How rare classes are made to count: ``none``, ``weights``, ``oversample``, ``undersample``, ``search``.
        feature_groups: Registered feature groups to look up, ``NAME`` or ``NAME@VERSION``; one or several.
        store: Folder of the feature groups; ``feature_store`` by default.
        time_column: Column that orders the splits: the earliest rows train, the latest are the sealed test.
        embargo: What lies between splits in time and is left out: ``"7d"``, or a number of rows.
        forecast: What of a time series is forecast, such as ``ForecastConfig(horizon=7, series_id="shop")``.
        interval: Share of the rows that prediction intervals of a regression should hold, such as 0.9; 0 for none.
        quantiles: Quantiles of a regression to predict instead, such as ``(0.05, 0.5, 0.95)``.
        limits: What the model must keep, such as ``"latency_ms<=5"`` or ``"num_parameters<=2e6"``; one or several.
        start_from: An earlier run on like data, or several, whose best configurations are tried first.
        backbone: Run directory of an earlier search on images, or file of weights, that networks begin with.
        workers: Worker processes; 0 takes one.
        folds: Folds of the cross-validation that judges trials; 1 judges them on the validation rows; by default small
            tables get folds where the time allows it.
        ensemble: Trials that answer together at most; 1 exports the winner alone; by default up to 8.
        seed: Seed of every random choice; 42 by default.
        config: TOML file with further settings; arguments here win.
        verbose: Whether to print what happens.

    Raises:
        DataError: The data cannot be used.
        TamizError: A setting, the run directory, the search or the export is at fault.
    """
    started = clock.time()
    settings = _settings(
        data,
        SearchArguments(
            target=target,
            time=time,
            trials=trials,
            space=space,
            algorithm=algorithm,
            objective=objective,
            features=tuple(f"{name}={kind}" for name, kind in (features or {}).items()),
            weight=weight,
            balance=balance,
            feature_groups=_several(feature_groups),
            store=str(store),
            time_column=time_column,
            embargo=embargo,
            forecast=forecast or ForecastConfig(),
            interval=interval,
            quantiles=",".join(map(str, quantiles)),
            folds=folds,
            ensemble=ensemble,
            seed=seed,
            limits=_several(limits),
            start_from=_several(start_from),
            backbone=str(backbone),
            execution=ExecutionArguments(workers=workers),
        ),
        config,
    )
    with contextlib.closing(make_executor(settings.execution, devices=settings.training.devices)) as executor:
        path, view = _place(run, settings), _view(verbose)
        return launch(_source(data, settings), settings, path=path, executor=executor, view=view, started=started)


def prepare(
    data: DataLike | Origin,
    *,
    target: str = "",
    run: str | Path | None = None,
    config: str | Path | ExperimentConfig | None = None,
    verbose: bool = True,
) -> Experiment:
    """Reads the data and declares the space, but trains nothing yet.

    The experiment that comes back takes `enqueue(configuration)` and `add_result(configuration, value)`; its `run()`
    then searches, trains, tests, exports and verifies.

    Args:
        data: As for `search`.
        target: Column to predict; a folder with a folder for each class of images needs none.
        run: Run directory; by default ``runs/<name>``, numbered if that is taken.
        config: Settings, or a TOML file with them; without, a search of 10 minutes.
        verbose: Whether to print what is found in the data.

    Raises:
        DataError: The data cannot be used.
        TamizError: A setting or the run directory is at fault.
    """
    settings = _settings(data, SearchArguments(target=target), config)
    view = _view(verbose)
    with contextlib.closing(make_executor(settings.execution, devices=settings.training.devices)) as executor:
        directory = prepare_data(_source(data, settings), settings, path=_place(run, settings), view=view)
        return begin(directory, directory.read_config(), executor=executor, view=view)


def resume(
    run: str | Path,
    *,
    time: str = "",
    trials: int | None = None,
    algorithm: str = "",
    ensemble: int | None = None,
    workers: int = 0,
    verbose: bool = True,
) -> Experiment:
    """Goes on with an experiment that was interrupted, killed or only prepared.

    Args:
        run: The run directory.
        time: Another budget for the whole experiment, such as ``"20m"``.
        trials: Another number of trials.
        algorithm: Another algorithm, which learns from the trials so far.
        ensemble: Another number of trials that answer together at most.
        workers: Another number of worker processes.
        verbose: Whether to print what happens.

    Raises:
        RunDirectoryError: There is no experiment, or a live one.
        TamizError: A setting, the search or the export is at fault.
    """
    changes = Changes(
        seconds=parse_duration(time) if time else None,
        trials=trials,
        algorithm=algorithm,
        ensemble=ensemble,
        execution=ExecutionArguments(workers=workers),
    )
    return resume_run(Path(run), view=_view(verbose), changes=changes, stored_rows=True)


def _settings(
    data: DataLike | Origin,
    arguments: SearchArguments,
    config: str | Path | ExperimentConfig | None,
) -> ExperimentConfig:
    if isinstance(data, Origin):
        size = str(data.max_bytes) if data.max_bytes else ""
        given = DataArguments(
            places=data.places, sql=data.sql, url=data.url, joins=data.joins, data_dir=data.data_dir, max_file_size=size
        )
    else:
        given = DataArguments(places=_places(data))
    base = Path(config) if isinstance(config, (str, Path)) else config
    return experiment_config(replace(arguments, data=given), base=base)


def _several(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Returns texts as they are, one as one: a text is a sequence, too, of its letters."""
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def _places(data: DataLike) -> tuple[str, ...]:
    if isinstance(data, str | os.PathLike):
        return (os.fspath(data),)
    if isinstance(data, list | tuple):
        return tuple(os.fspath(place) for place in data)
    return ()


def _source(data: DataLike | Origin, settings: ExperimentConfig) -> Source:
    if isinstance(data, Origin):
        return source_of(settings.data, url=data.url)
    if _places(data):
        return source_of(settings.data)
    given = settings.data
    joined = with_joins(open_source(data), given.joins, data_dir=given.data_dir, max_bytes=given.max_file_size)
    return looking_up(joined, given)


def _place(run: str | Path | None, settings: ExperimentConfig) -> Path:
    return Path(run) if run is not None else _free_place(Path("runs") / settings.name)


def _view(verbose: bool) -> View:
    return ConsoleView(Console()) if verbose else SilentView()


def _free_place(path: Path) -> Path:
    number = 1
    place = path
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}-{number}")
    return place
