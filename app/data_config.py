"""The settings of an experiment's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.errors import ConfigError, did_you_mean
from app.forecast_config import embargo_parts

NO_CACHE = "none"
"""The folder of prepared tables where there is to be none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which data, and what is known about it beforehand.

    Attributes:
        source: File, folder, pattern or URL of the table, ``tfds:NAME/CONFIG`` or ``python:module:function``; empty
            for a table given in memory or by a database.
        more_sources: Further files of the same table.
        sql: Query to a database.
        url: SQLAlchemy's URL of the database, without its password.
        joins: Tables to look up, ``FILE:KEY`` or ``FILE:LEFT=RIGHT``.
        feature_groups: Feature groups to look up, ``NAME@VERSION``.
        store: Folder of the feature groups; empty for ``feature_store``.
        data_dir: Folder of prepared tensorflow-datasets; empty for its default.
        lock: Lock file of `tamiz data lock` that the data must match; empty for none.
        cache: Folder of prepared tables for the next search; empty for ``.cache`` beside the run, ``none`` for none.
        in_memory: Bytes of a table beyond which it stays on disk and is looked at a part at a time.
        sample_rows: Training rows that such a table's preprocessing is learned from.
        max_file_size: Bytes that a file may have, also unpacked; 0 limits only how much a file may grow when unpacked.
        target: Column to predict, or several with commas between them.
        task: ``auto``, ``binary``, ``multiclass``, ``multilabel``, ``regression`` or ``forecast``.
        features: Column -> kind that overrides the inference (``ignore`` drops the column).
        group: Column whose rows must stay together in one split; empty for none.
        time_column: Column that orders the splits; empty for none.
        embargo: What lies between splits in time and is left out: ``7d``, or a number of rows; empty for nothing.
        weight: Column that says how much a row counts in the loss and the metrics; empty for none.
        quantiles: Levels of a quantile regression, rising, 0.5 among them; empty for none.
        missing_values: Further texts that mean a missing value.
        encoding: Text encoding of a CSV file; empty recognises it.
        delimiter: Delimiter of a CSV file; empty recognises it.
        validation_share: Share of the rows that selects, in (0, 0.5).
        test_share: Share of the rows that is sealed for the report, in (0, 0.5).
    """

    source: str = ""
    more_sources: tuple[str, ...] = ()
    sql: str = ""
    url: str = ""
    joins: tuple[str, ...] = ()
    feature_groups: tuple[str, ...] = ()
    store: str = ""
    data_dir: str = ""
    lock: str = ""
    cache: str = ""
    in_memory: int = 256 << 20
    sample_rows: int = 300_000
    max_file_size: int = 0
    target: str = ""
    task: str = "auto"
    features: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    time_column: str = ""
    embargo: str = ""
    weight: str = ""
    quantiles: tuple[float, ...] = ()
    missing_values: tuple[str, ...] = ()
    encoding: str = ""
    delimiter: str = ""
    validation_share: float = 0.15
    test_share: float = 0.15

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A share is out of range, or the task is unknown.
        """
        for name in ("validation_share", "test_share"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a share above 0 and below 0.5")
        if self.in_memory < 0 or self.sample_rows < 1_000:
            raise ConfigError(
                f"in_memory is {self.in_memory} bytes and sample_rows is {self.sample_rows}: expected bytes from 0 and "
                f"at least 1000 rows to learn from"
            )
        levels = self.quantiles
        if levels and not (
            list(levels) == sorted(set(levels)) and levels[0] > 0.0 and levels[-1] < 1.0 and 0.5 in levels[1:-1]
        ):
            raise ConfigError(
                f"quantiles are {', '.join(map(str, levels))}: expected rising levels between 0 and 1, one below 0.5, "
                f"0.5 itself and one above, such as 0.05, 0.5, 0.95"
            )
        known = ("auto", "binary", "multiclass", "multilabel", "regression", "forecast")
        if self.task not in known:
            hint = did_you_mean(self.task, known)
            raise ConfigError(f"task is {self.task!r}{hint}: expected one of {', '.join(known)}")
        if any(embargo_parts(self.embargo)) and not self.time_column:
            raise ConfigError(
                f"embargo is {self.embargo!r} and there is no time column: name the column that orders the rows "
                f"with --time-column"
            )
