"""From the words of the command line, or of `tamiz.search`, to settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.config import ExperimentConfig, name_from, parse_duration, read_config
from app.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchArguments:
    """What a user gave; an empty value leaves the setting as it is.

    Attributes:
        source: File of the table; empty for one in memory.
        target: Column to predict.
        time: Wall-clock budget, such as ``10m``.
        trials: Number of trials.
        name: Name of experiment and model.
        space: Space.
        algorithm: Search algorithm.
        objective: Validation metric.
        task: Task.
        features: ``NAME=KIND``, each overriding a guess.
        group: Group column.
        time_column: Column that orders the splits.
        missing: Texts that mean a missing value.
        encoding: Encoding of the file.
        delimiter: Delimiter of the file.
        epochs: Epochs of a trial at full budget.
        folds: Folds of the cross-validation, 1 for none, 0 for automatic; None leaves the setting as it is.
        seed: Seed.
        devices: TensorFlow devices.
    """

    source: str = ""
    target: str = ""
    time: str = ""
    trials: int = 0
    name: str = ""
    space: str = ""
    algorithm: str = ""
    objective: str = ""
    task: str = ""
    features: tuple[str, ...] = ()
    group: str = ""
    time_column: str = ""
    missing: tuple[str, ...] = ()
    encoding: str = ""
    delimiter: str = ""
    epochs: int = 0
    folds: int | None = None
    seed: int | None = None
    devices: tuple[str, ...] = ()


def experiment_config(arguments: SearchArguments, *, file: Path | None = None) -> ExperimentConfig:
    """Returns the settings: defaults, then the file's, then what was given.

    Raises:
        ConfigError: A value cannot be used, or there is no target.
    """
    base = ExperimentConfig() if file is None else read_config(file)
    data = replace(
        base.data,
        features={**base.data.features, **dict(_feature(text) for text in arguments.features)},
        **_given(
            # A run is resumed from anywhere, and must find the same file.
            source=str(Path(arguments.source).absolute()) if arguments.source else "",
            target=arguments.target,
            task=arguments.task,
            group=arguments.group,
            time_column=arguments.time_column,
            missing_values=arguments.missing,
            encoding=arguments.encoding,
            delimiter=arguments.delimiter,
        ),
    )
    if not data.target:
        raise ConfigError("no target: say which column to predict with --target")
    search = replace(
        base.search,
        **_budget(arguments),
        **_given(space=arguments.space, algorithm=arguments.algorithm, objective=arguments.objective),
        folds=base.search.folds if arguments.folds is None else arguments.folds,
        seed=base.search.seed if arguments.seed is None else arguments.seed,
    )
    training = replace(base.training, **_given(max_epochs=arguments.epochs, devices=_devices(arguments.devices)))
    stem = Path(data.source).name.split(".")[0] if data.source else data.target
    name = arguments.name or (base.name if base.name != ExperimentConfig().name else name_from(stem))
    return replace(base, name=name, data=data, search=search, training=training)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _budget(arguments: SearchArguments) -> dict[str, Any]:
    """A number of trials alone is a budget without a clock."""
    if arguments.time:
        return {"seconds": parse_duration(arguments.time), "trials": arguments.trials}
    return {"seconds": 0.0, "trials": arguments.trials} if arguments.trials else {}


def _feature(text: str) -> tuple[str, str]:
    name, separator, kind = text.rpartition("=")
    if not separator or not name:
        raise ConfigError(f"feature is {text!r}: expected NAME=KIND, such as zip=categorical")
    return name, kind


def _devices(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(device.strip().upper() for name in names for device in name.split(","))
