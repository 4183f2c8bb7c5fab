"""The settings of an experiment: frozen dataclasses, TOML in and out, errors that name the nearest setting."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import tomli_w

from app.data_config import DataConfig
from app.errors import ConfigError, did_you_mean
from app.forecast_config import ForecastConfig
from app.image_config import ImageConfig
from app.quantities import MAX_SECONDS
from app.time_settings import check_time
from pipelines.balance import Balance

__all__ = [
    "DEFAULT_SECONDS",
    "NAME_PATTERN",
    "Balance",
    "DataConfig",
    "ExecutionConfig",
    "ExecutorKind",
    "ExperimentConfig",
    "ForecastConfig",
    "ImageConfig",
    "Placement",
    "Precision",
    "SearchConfig",
    "TrainingConfig",
    "check_name",
    "did_you_mean",
    "name_from",
    "read_config",
]

DEFAULT_SECONDS = 600.0
MAX_FOLDS = 10
MAX_ENSEMBLE = 32
_RENAMED = {"class_weights": "expected balance, with weights for always and none for never"}
"""Settings that had another name, and what stands in their place."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

_T = typing.TypeVar("_T")


class Placement(StrEnum):
    """How trials are laid out over the devices."""

    AUTO = "auto"
    PER_DEVICE = "per-device"
    MIRRORED = "mirrored"


class ExecutorKind(StrEnum):
    """Who runs the workers."""

    LOCAL = "local"
    RAY = "ray"


class Precision(StrEnum):
    """Floating-point precision of the training."""

    AUTO = "auto"
    FLOAT32 = "float32"
    MIXED = "mixed_float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """What is searched, how, and for how long.

    Attributes:
        space: Name of a space (`search_spaces.catalogue.SPACES`), or ``module:build``.
        algorithm: ``auto``, ``random``, ``grid``, ``bayesian``, ``tpe``, ``evolution``, ``hyperband``, ``asha``,
            ``bohb``, ``one-shot``, or a scheduler and a sampler such as ``asha+random``.
        objective: Validation metric to select by; ``auto`` takes the task's own. More after commas (metrics,
            ``latency``, ``num_parameters``, ``size``) are minimised or maximised beside it.
        limits: Constraints such as ``latency_ms<=5`` or ``num_parameters<=2e6``.
        start_from: Run directories of earlier searches on like data, whose best configurations are tried first.
        backbone: What a search on images begins with: the run directory of an earlier one, or a file of weights of a
            network of Keras Applications.
        seconds: Wall-clock budget of everything, final training and export included, in seconds; 0 for none.
        trials: Number of trials; 0 for no limit.
        ensemble: Trials that answer together at most, from 2 to 32; 1 exports the winner alone; 0 takes 8, and 1 where
            there are several objectives.
        folds: Folds of the cross-validation that judges trials, from 2 to 10; 1 judges them on the validation part; 0
            takes folds where that part would be too small, and the time allows it.
        seed: Seed of every random choice, in [0, 2**32).
    """

    space: str = "tabular"
    algorithm: str = "auto"
    objective: str = "auto"
    limits: tuple[str, ...] = ()
    start_from: tuple[str, ...] = ()
    backbone: str = ""
    seconds: float = DEFAULT_SECONDS
    trials: int = 0
    ensemble: int = 0
    folds: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A budget is negative, none is given, or the folds, the ensemble or the seed are out of range.
        """
        if not 0 <= self.seconds <= MAX_SECONDS or self.trials < 0:
            raise ConfigError(
                f"the budget is {self.seconds} seconds and {self.trials} trials: expected seconds from 0 to ten years "
                f"and trials of at least 0"
            )
        if not self.seconds and not self.trials:
            raise ConfigError("a search needs a budget: give --time (such as 10m), --trials (such as 50), or both")
        if not 0 <= self.folds <= MAX_FOLDS:
            raise ConfigError(
                f"folds is {self.folds}: expected 2 to {MAX_FOLDS}, 1 for one validation part, or 0 (automatic)"
            )
        if not 0 <= self.ensemble <= MAX_ENSEMBLE:
            raise ConfigError(
                f"ensemble is {self.ensemble}: expected 2 to {MAX_ENSEMBLE} trials, 1 for the winner alone, or 0 "
                f"(automatic)"
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}: expected a whole number from 0 to {2**32 - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How one trial is trained.

    Attributes:
        max_epochs: Epochs of a trial at full budget; 0 chooses by the number of rows.
        patience: Epochs without a better validation value after which a trial ends.
        balance: How rare classes are made to count (`pipelines.balance.Balance`); ``auto`` weighs them more past an
            imbalance of 10 to 1.
        precision: ``auto`` takes mixed precision on GPUs that have it.
        devices: TensorFlow devices to train on, such as ``GPU:0``; empty takes all GPUs, else the CPU. More CPUs
            than the machine shows are logical ones: ``("CPU:0", "CPU:1")`` splits one CPU in two.
    """

    max_epochs: int = 0
    patience: int = 10
    balance: Balance = Balance.AUTO
    precision: Precision = Precision.AUTO
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A number is out of range or a device name is malformed.
        """
        if self.max_epochs < 0 or self.patience < 1:
            raise ConfigError(
                f"max_epochs is {self.max_epochs} and patience {self.patience}: expected max_epochs of at least 0 "
                f"(0 = automatic) and patience of at least 1"
            )
        for device in self.devices:
            if not re.fullmatch(r"(CPU|GPU):\d{1,2}", device):
                raise ConfigError(f"device is {device!r}: expected a name such as GPU:0 or CPU:1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Who runs the trials, and where.

    Attributes:
        executor: ``local`` workers on this machine, or a ``ray`` cluster.
        workers: Number of worker processes; 0 takes one a GPU, or one.
        placement: ``per-device`` runs a trial on each device, ``mirrored`` one trial on all; ``auto`` chooses.
        worker_memory: Bytes of memory past which a worker is replaced; 0 takes a share of the machine's.
        ray_address: Address of a Ray cluster; empty starts Ray on this machine.
        packing: Whether trials of one shape train together in one graph.
        checkpoints: URL that fsspec opens, or folder, in which the states of trials are kept; empty keeps them in the
            run directory.
    """

    executor: ExecutorKind = ExecutorKind.LOCAL
    workers: int = 0
    placement: Placement = Placement.AUTO
    worker_memory: int = 0
    ray_address: str = ""
    packing: bool = True
    checkpoints: str = ""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        if not 0 <= self.workers <= 1024:
            raise ConfigError(f"workers is {self.workers}: expected a number from 0 (automatic) to 1024")
        if self.worker_memory < 0:
            raise ConfigError(f"worker_memory is {self.worker_memory} bytes: expected at least 0 (automatic)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """All settings of one experiment.

    Attributes:
        name: Name of the experiment and of the exported model.
        keep: Number of best trials whose resumable state stays on disk.
        data: The data.
        forecast: What of a time series is forecast.
        search: The search.
        training: The training of one trial.
        execution: The workers.
        images: How a column of images is read, where there is one.
    """

    name: str = "experiment"
    keep: int = 3
    data: DataConfig = field(default_factory=DataConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    images: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        """Checks the name, which becomes a folder and a model name, and what sections ask for together.

        Raises:
            ConfigError: The name has other characters than a path component may have, or two settings exclude each
                other.
        """
        check_name(self.name)
        if self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: expected at least 1")
        check_time(self.data, self.forecast, folds=self.search.folds)

    def to_toml(self) -> str:
        """Returns the settings as TOML, all of them, defaults included."""
        return tomli_w.dumps(_plain(dataclasses.asdict(self)))

    @classmethod
    def from_toml(cls, text: str, *, origin: str = "the configuration") -> ExperimentConfig:
        """Reads settings from TOML.

        Args:
            text: TOML; whatever it leaves out keeps its default.
            origin: Name of the file, for messages.

        Raises:
            ConfigError: The text is no TOML, or has an unknown setting or one of the wrong type.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{origin} is not valid TOML: {error}") from error
        return _build(cls, values, origin)


def check_name(name: str) -> str:
    """Returns `name` if it can name an experiment.

    Raises:
        ConfigError: It cannot.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"name is {name!r}: expected up to 100 letters, digits, '_', '-' and '.', not starting with '-' or '.'"
        )
    return name


def name_from(text: str) -> str:
    """Returns the closest valid experiment name to `text`, such as a file's stem."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:100]
    return cleaned or "experiment"


def read_config(path: Path) -> ExperimentConfig:
    """Reads the settings of a TOML file.

    Raises:
        ConfigError: The file cannot be read or holds something else.
    """
    try:
        return ExperimentConfig.from_toml(path.read_text(encoding="utf-8"), origin=str(path))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: expected a TOML file") from error


def _plain(value: Any) -> Any:
    """Returns `value` in the types TOML has."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def _build(cls: type[_T], values: Mapping[str, Any], origin: str) -> _T:
    hints = typing.get_type_hints(cls)
    unknown = [name for name in values if name not in hints]
    if unknown:
        renamed = _RENAMED.get(unknown[0])
        hint = f": {renamed}" if renamed else did_you_mean(unknown[0], hints)
        raise ConfigError(f"{origin} has an unknown setting {unknown[0]!r}{hint}")
    return cls(**{name: _convert(hints[name], value, f"{origin}: {name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Returns `value` as the type `hint`, or raises ConfigError."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _build(hint, value, where)
    if origin is tuple and isinstance(value, list):
        wanted = typing.get_args(hint)[0]
        if wanted is str and all(isinstance(item, str) for item in value):
            return tuple(value)
        if wanted is float and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value):
            return tuple(map(float, value))
    if origin in (Mapping, typing.get_origin(Mapping[str, str])) and isinstance(value, Mapping):
        if all(isinstance(item, str) for item in value.values()):
            return dict(value)
    elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        if issubclass(hint, StrEnum) and isinstance(value, str):
            if value not in list(hint):
                raise ConfigError(f"{where} is {value!r}{did_you_mean(value, hint)}: expected {', '.join(hint)}")
            return hint(value)
        if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return value
    raise ConfigError(f"{where} is {value!r}: expected {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    """Returns what TOML calls the type `hint`."""
    if dataclasses.is_dataclass(hint):
        return "a section of settings"
    if typing.get_origin(hint) is tuple:
        return "a list of texts" if typing.get_args(hint)[0] is str else "a list of numbers"
    if typing.get_origin(hint) is not None:
        return "a table of texts"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"one of {', '.join(hint)}"
    return {int: "a whole number", float: "a number", str: "a text"}.get(hint, str(hint))
