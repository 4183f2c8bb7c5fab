"""From the words of the command line, or of `tamiz.search`, to settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar

from app.config import (
    DataConfig,
    ExecutionConfig,
    ExecutorKind,
    ExperimentConfig,
    ForecastConfig,
    Placement,
    did_you_mean,
    name_from,
    read_config,
)
from app.data_config import NO_CACHE
from app.errors import ConfigError
from app.quantities import parse_bytes, parse_duration
from pipelines.addresses import is_path, is_url, shown_database, shown_place
from pipelines.balance import Balance
from pipelines.feature_groups import DEFAULT_STORE, find_group
from pipelines.sources.image_folder import LABEL, is_image_folder

_Option = TypeVar("_Option", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchArguments:
    """What a user gave; an empty value leaves the setting as it is.

    Attributes:
        data: Where the table is.
        lock: Lock file that the data must match.
        cache: Folder of prepared tables for the next search, or ``none``.
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
        feature_groups: Feature groups to look up, ``NAME`` or ``NAME@VERSION``.
        store: Folder of the feature groups.
        time_column: Column that orders the splits.
        embargo: What lies between splits in time and is left out, such as ``7d``.
        forecast: What of a time series is forecast; fields with their defaults leave the settings as they are.
        weight: Column that says how much a row counts.
        quantiles: Levels with commas between them, such as ``0.05,0.5,0.95``.
        interval: Share of the rows that the interval should hold, such as ``0.9``; 0 for none.
        missing: Texts that mean a missing value.
        encoding: Encoding of the file.
        delimiter: Delimiter of the file.
        epochs: Epochs of a trial at full budget.
        folds: Folds of the cross-validation, 1 for none, 0 for automatic; None leaves the setting as it is.
        ensemble: Trials that answer together at most, 1 for the winner alone; None leaves the setting as it is.
        seed: Seed.
        devices: TensorFlow devices.
        limits: Constraints such as ``latency_ms<=5``.
        start_from: Earlier runs on like data.
        backbone: Earlier run on images, or file of weights, to begin with.
        keep: Number of best trials whose state is kept; 0 leaves the setting as it is.
        balance: How rare classes are made to count.
        execution: Who runs the trials.
    """

    data: DataArguments = field(default_factory=lambda: DataArguments())
    lock: str = ""
    cache: str = ""
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
    feature_groups: tuple[str, ...] = ()
    store: str = ""
    time_column: str = ""
    embargo: str = ""
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    weight: str = ""
    quantiles: str = ""
    interval: float = 0.0
    missing: tuple[str, ...] = ()
    encoding: str = ""
    delimiter: str = ""
    epochs: int = 0
    folds: int | None = None
    ensemble: int | None = None
    seed: int | None = None
    devices: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    start_from: tuple[str, ...] = ()
    backbone: str = ""
    keep: int = 0
    balance: str = ""
    execution: ExecutionArguments = field(default_factory=lambda: ExecutionArguments())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataArguments:
    """Where a user has data; an empty value leaves the setting as it is.

    Attributes:
        places: Files, folders, patterns or URLs, ``tfds:NAME/CONFIG`` or ``python:module:function``.
        sql: Query to a database.
        url: SQLAlchemy's URL of the database, with its password if it has one.
        joins: Tables to look up, ``FILE:KEY`` or ``FILE:LEFT=RIGHT``.
        data_dir: Folder of prepared tensorflow-datasets.
        max_file_size: Size such as ``10GB``.
    """

    places: tuple[str, ...] = ()
    sql: str = ""
    url: str = ""
    joins: tuple[str, ...] = ()
    data_dir: str = ""
    max_file_size: str = ""

    def applied(self, data: DataConfig) -> DataConfig:
        """Returns the settings with what was given; the database's password stays out of them.

        A run is resumed from anywhere, and must find the same files: paths become absolute.

        Raises:
            ConfigError: The size is none.
        """
        places = tuple(map(_settled, self.places))
        size = parse_bytes(self.max_file_size, option="max-file-size") if self.max_file_size else 0
        joins = []
        for text in self.joins:
            place, _, key = text.rpartition(":")
            # What has no key is refused, in its own words, where it is opened.
            joins.append(f"{_settled(place)}:{key}" if place else text)
        if places or self.sql:
            data = replace(data, source="", more_sources=(), sql="", url="")
        return replace(
            data,
            **_given(
                source=places[0] if places else "",
                more_sources=places[1:],
                sql=self.sql,
                url=shown_database(self.url),
                joins=tuple(joins),
                data_dir=str(Path(self.data_dir).absolute()) if self.data_dir else "",
                max_file_size=size,
            ),
        )


def _settled(place: str) -> str:
    return str(Path(place).absolute()) if place and is_path(place) else shown_place(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionArguments:
    """What a user gave about the workers; an empty value leaves the setting as it is.

    Attributes:
        executor: ``local`` or ``ray``.
        workers: Number of workers.
        placement: ``auto``, ``per-device`` or ``mirrored``.
        worker_memory: Size such as ``4GB``.
        ray_address: Address of a Ray cluster.
        packing: Whether trials of one shape train together; None leaves the setting as it is.
        checkpoints: URL or folder for the states of trials.
    """

    executor: str = ""
    workers: int = 0
    placement: str = ""
    worker_memory: str = ""
    ray_address: str = ""
    packing: bool | None = None
    checkpoints: str = ""


def execution_config(base: ExecutionConfig, given: ExecutionArguments) -> ExecutionConfig:
    """Returns the settings of the workers: `base`, then what was given.

    Raises:
        ConfigError: A value cannot be used; the message names what was expected.
    """
    return replace(
        base,
        **_given(
            executor=_choice("executor", given.executor, ExecutorKind),
            workers=given.workers,
            placement=_choice("placement", given.placement, Placement),
            worker_memory=parse_bytes(given.worker_memory) if given.worker_memory else 0,
            ray_address=given.ray_address,
            # A URL as it is: one with a password is refused, not cut.
            checkpoints=given.checkpoints if is_url(given.checkpoints) else _settled(given.checkpoints),
        ),
        packing=base.packing if given.packing is None else given.packing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a resumed experiment does otherwise; an empty value keeps what it had.

    Attributes:
        seconds: Time budget for the whole experiment; None keeps the old one.
        trials: Number of trials; None keeps the old one.
        algorithm: Name of the algorithm, which learns from the trials so far.
        ensemble: Trials that answer together at most; None keeps the old number.
        execution: The workers.
    """

    seconds: float | None = None
    trials: int | None = None
    algorithm: str = ""
    ensemble: int | None = None
    execution: ExecutionArguments = field(default_factory=ExecutionArguments)

    def applied(self, config: ExperimentConfig) -> ExperimentConfig:
        """Returns the settings with the changes.

        Raises:
            ConfigError: A value cannot be used.
        """
        if self.execution.checkpoints not in ("", config.execution.checkpoints):
            raise ConfigError(
                f"checkpoints are {self.execution.checkpoints!r}: those of this search stay where it began to keep "
                f"them, {config.execution.checkpoints or 'in its run directory'}; leave them out"
            )
        search = replace(
            config.search,
            seconds=config.search.seconds if self.seconds is None else self.seconds,
            trials=config.search.trials if self.trials is None else self.trials,
            algorithm=self.algorithm or config.search.algorithm,
            ensemble=config.search.ensemble if self.ensemble is None else self.ensemble,
        )
        return replace(config, search=search, execution=execution_config(config.execution, self.execution))


def experiment_config(
    arguments: SearchArguments, *, base: Path | ExperimentConfig | None = None
) -> ExperimentConfig:
    """Returns the settings: defaults, then those of `base`, a TOML file or settings, then what was given.

    Raises:
        ConfigError: A value cannot be used, or there is no target.
    """
    base = ExperimentConfig() if base is None else read_config(base) if isinstance(base, Path) else base
    data = replace(
        arguments.data.applied(base.data),
        features={**base.data.features, **dict(_feature(text) for text in arguments.features)},
        **_given(
            lock=arguments.lock,
            cache=arguments.cache if arguments.cache in ("", NO_CACHE) else str(Path(arguments.cache).absolute()),
            target=arguments.target,
            task=arguments.task,
            group=arguments.group,
            **_feature_groups(arguments, base.data),
            time_column=arguments.time_column,
            embargo=arguments.embargo,
            weight=arguments.weight,
            quantiles=_quantiles(arguments.quantiles, arguments.interval),
            missing_values=arguments.missing,
            encoding=arguments.encoding,
            delimiter=arguments.delimiter,
        ),
    )
    if not data.target and is_image_folder(data.source):
        data = replace(data, target=LABEL)
    if arguments.forecast.series_id and not (arguments.forecast.horizon or base.forecast.horizon):
        raise ConfigError("series are given and there is no horizon: say how many steps to forecast with --horizon")
    if not data.target:
        raise ConfigError(f"no target: say which column to predict with --target{_without_images(data.source)}")
    search = replace(
        base.search,
        **_budget(arguments),
        **_given(
            space=arguments.space,
            algorithm=arguments.algorithm,
            objective=arguments.objective,
            limits=arguments.limits,
            # As the data: a resumed search may run from elsewhere.
            start_from=tuple(str(Path(run).absolute()) for run in arguments.start_from),
            backbone=str(Path(arguments.backbone).absolute()) if arguments.backbone else "",
        ),
        folds=base.search.folds if arguments.folds is None else arguments.folds,
        ensemble=base.search.ensemble if arguments.ensemble is None else arguments.ensemble,
        seed=base.search.seed if arguments.seed is None else arguments.seed,
    )
    untouched = ForecastConfig()
    forecast = {name: value for name, value in asdict(arguments.forecast).items() if value != getattr(untouched, name)}
    training = replace(base.training, **_given(max_epochs=arguments.epochs, devices=_devices(arguments.devices)))
    training = replace(training, balance=_choice("balance", arguments.balance, Balance) or training.balance)
    stem = Path(data.source).name.split(".")[0].rstrip("*-") if data.source else data.target
    name = arguments.name or (base.name if base.name != ExperimentConfig().name else name_from(stem))
    execution = execution_config(base.execution, arguments.execution)
    keep = arguments.keep or base.keep
    return replace(
        base,
        name=name,
        keep=keep,
        data=data,
        forecast=replace(base.forecast, **forecast),
        search=search,
        training=training,
        execution=execution,
    )


def _without_images(source: str) -> str:
    """Returns why a place has no target of its own, as a folder of images has."""
    if not source or not is_path(source):
        return ""
    if Path(source).is_dir():
        return f"; the folder {source!r} holds no images, whose folders would be their labels"
    return "" if Path(source).exists() or has_magic(source) else f"; and nothing is at {source!r}"


def _feature_groups(arguments: SearchArguments, base: DataConfig) -> dict[str, Any]:
    """Settles the versions of the groups and where they are: a resumed search must find the same."""
    titles = arguments.feature_groups or base.feature_groups
    store = Path(arguments.store or base.store or DEFAULT_STORE).absolute()
    if not titles:
        if arguments.store:
            raise ConfigError("a store is given and no feature group: name one with --features")
        return {}
    return {"feature_groups": tuple(find_group(store, title).title for title in titles), "store": str(store)}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _choice(name: str, text: str, options: type[_Option]) -> _Option | None:
    if not text:
        return None
    if text not in list(options):
        raise ConfigError(f"{name} is {text!r}{did_you_mean(text, options)}: expected {', '.join(options)}")
    return options(text)


def _budget(arguments: SearchArguments) -> dict[str, Any]:
    """A number of trials alone is a budget without a clock."""
    if arguments.time:
        return {"seconds": parse_duration(arguments.time), "trials": arguments.trials}
    return {"seconds": 0.0, "trials": arguments.trials} if arguments.trials else {}


def _quantiles(text: str, interval: float) -> tuple[float, ...]:
    """The levels that were asked for, with the median among them; () for none."""
    if text and interval:
        raise ConfigError("quantiles and an interval were both given: give --quantiles or --interval, not both")
    if interval:
        if not 0.0 < interval < 1.0:
            raise ConfigError(f"interval is {interval:g}: expected a share of the rows between 0 and 1, such as 0.9")
        tail = round((1.0 - interval) / 2.0, 12)
        return (tail, 0.5, round(1.0 - tail, 12))
    try:
        levels = {float(level) for level in text.split(",")} if text else set()
    except ValueError:
        raise ConfigError(f"quantiles are {text!r}: expected levels such as 0.05,0.5,0.95") from None
    return tuple(sorted(levels | {0.5})) if levels else ()


def _feature(text: str) -> tuple[str, str]:
    name, separator, kind = text.rpartition("=")
    if not separator or not name:
        raise ConfigError(f"feature is {text!r}: expected NAME=KIND, such as zip=categorical")
    return name, kind


def _devices(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(device.strip().upper() for name in names for device in name.split(","))
