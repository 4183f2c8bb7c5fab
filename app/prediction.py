"""Answers of an exported model for files and tables, from a process that holds TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from app.answer_files import answer_writer, check_output
from app.config import ExperimentConfig
from app.data_source import looking_up, read_options
from app.errors import ConfigError, WorkerError
from app.execution.local_executor import LocalExecutor
from app.execution.messages import Predict, Predicted
from app.forecast_answers import latest_rows, wants_past
from pipelines.column_values import has_leading_zeros, plain_array, require_column, text_of
from pipelines.errors import DataError
from pipelines.image_files import with_image_bytes
from pipelines.raw_columns import raw_columns, with_optional_columns
from pipelines.schema import DatasetSchema, FeatureKind
from pipelines.sources import Chunk, DataLike, Source, open_source, with_joins

IMAGE_ROWS = 64
"""Images that are decoded and answered at once."""

CHUNK_ROWS = 50_000
"""Rows of a file that are in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a file is answered.

    Attributes:
        key: Column of the file that is written beside the answers, and is the key of a table; "" for none.
        chunk_rows: Rows in memory at once.
        replace: Whether a table may be replaced.
    """

    key: str = ""
    chunk_rows: int = CHUNK_ROWS
    replace: bool = False

    def __post_init__(self) -> None:
        if self.chunk_rows < 1:
            raise ConfigError(f"chunk_rows is {self.chunk_rows}: expected at least 1")


@final
class Predictor:
    """Predicts with an exported model; the process that does so is kept for the next call.

    Args:
        saved_model: The version directory.
        schema: What the columns are.
        config: The settings that the model's data was read with.
    """

    def __init__(self, saved_model: Path, *, schema: DatasetSchema, config: ExperimentConfig) -> None:
        self._saved_model, self._schema, self._config = saved_model, schema, config
        self._executor = LocalExecutor()
        images = [feature.name for feature in schema.used_features if feature.kind is FeatureKind.IMAGE]
        self._image = images[0] if images else None

    def predict(self, data: DataLike) -> pd.DataFrame:
        """Returns one row of answers for each row of `data`.

        Raises:
            DataError: A column is missing or of another type.
            WorkerError: The model cannot be loaded.
        """
        options = read_options(self._config, schema=self._schema)
        source = open_source(data)
        table = source.read(options).table
        if wants_past(table.column_names, self._schema):
            return self._forecast(table)
        if not self._names <= set(table.column_names):
            table = self._with_joins(open_source(table)).read(options).table
        if not source.has_fixed_columns:
            table = with_optional_columns(table, self._schema)
        index = data.index if isinstance(data, pd.DataFrame) else None
        return self._answers(table, index=index, folder=source.folder)

    def predict_file(self, data: DataLike, *, output: str | Path, settings: BatchSettings | None = None) -> int:
        """Writes one row of answers for each row of a source, however long it is; returns how many.

        Args:
            data: Files, a query, or whatever else is data.
            output: A .parquet or .csv file, ``FILE.db[#TABLE]``, or a database URL with ``#TABLE`` behind it.
            settings: How.

        Raises:
            DataError: The source cannot be read, or a column is missing or of another type.
            RunDirectoryError: The answers cannot be written; nothing of them is left then.
            WorkerError: The model cannot be loaded.
        """
        settings = settings or BatchSettings()
        check_output(output)
        source = open_source(data)
        if self._schema.windows is not None:
            return self._forecast_file(source, output=output, settings=settings)
        num_rows = 0
        keys = _KeyColumn(settings.key)
        with answer_writer(output, key=settings.key, replace=settings.replace) as writer:
            for chunk in self._chunks(source, settings):
                table = chunk.table if source.has_fixed_columns else with_optional_columns(chunk.table, self._schema)
                with _located(chunk, source):
                    answers = self._answers(table, index=None, folder=source.folder)
                    if settings.key:
                        keys.insert(answers, chunk.table)
                writer.write(answers)
                num_rows += len(answers)
        return num_rows

    def close(self) -> None:
        """Ends the process."""
        self._executor.close()

    def _forecast(self, table: pa.Table) -> pd.DataFrame:
        """Returns one row of forecasts for each series, from its last known value on."""
        rows, whose = latest_rows(table, self._schema.windows or {})
        answers = self._answers(rows, index=None)
        return pd.concat([whose, answers], axis=1)

    def _forecast_file(self, source: Source, *, output: str | Path, settings: BatchSettings) -> int:
        """Writes the forecasts; a series is read whole, as its past may lie anywhere in the source."""
        answers = self.predict(source)
        if settings.key and settings.key not in answers:
            raise DataError(
                f"Expected a column of the forecasts as the key, {', '.join(map(repr, answers.columns[:2]))}, received "
                f"{settings.key!r}."
            )
        with answer_writer(output, key=settings.key, replace=settings.replace) as writer:
            writer.write(answers)
        return len(answers)

    @property
    def _names(self) -> set[str]:
        return {feature.name for feature in self._schema.used_features}

    def _with_joins(self, source: Source) -> Source:
        data = self._config.data
        joined = with_joins(source, data.joins, data_dir=data.data_dir, max_bytes=data.max_file_size)
        return looking_up(joined, data, now=True, schema=self._schema)

    def _chunks(self, source: Source, settings: BatchSettings) -> Iterator[Chunk]:
        columns = self._names | ({settings.key} if settings.key else set())
        options = read_options(self._config, schema=self._schema)
        options = replace(options, text_columns=(*options.text_columns, settings.key))
        return self._with_joins(source).chunks(options, chunk_rows=settings.chunk_rows, columns=columns)

    def _answers(self, table: pa.Table, *, index: pd.Index[Any] | None, folder: str = "") -> pd.DataFrame:
        if self._image is None:
            return answers_frame(self._outputs(table), self._schema, index=index)
        parts = []
        for start in range(0, table.num_rows, IMAGE_ROWS):
            with _counted_from(start, table.num_rows):
                part = with_image_bytes(table.slice(start, IMAGE_ROWS), self._image, folder=folder)
                parts.append(self._outputs(part))
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return answers_frame(outputs, self._schema, index=index)

    def _outputs(self, table: pa.Table) -> Mapping[str, NDArray[Any]]:
        columns = raw_columns(table, self._schema)
        reply = self._executor.call(Predict(directory=str(self._saved_model.absolute()), columns=columns))
        if not isinstance(reply, Predicted):
            raise WorkerError(f"the worker answered {type(reply).__name__}: expected Predicted")
        return reply.outputs


@final
class _KeyColumn:
    """The key as whole numbers or as text, whichever it is in the first rows of the file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._type: pa.DataType | None = None

    def insert(self, answers: pd.DataFrame, table: pa.Table) -> None:
        """Makes the key the first column of the answers."""
        if self._name in answers:
            raise DataError(f"The key {self._name!r} has the name of an answer; rename the column.")
        keys = plain_array(table, require_column(table, self._name, role="key column"))
        if self._type is None:
            codes = keys.type == pa.string() and has_leading_zeros(keys)
            self._type = pa.string() if codes or _as_integers(keys) is None else pa.int64()
        found = text_of(keys) if self._type == pa.string() else _as_integers(keys)
        if found is None:
            raise DataError(
                f"Expected whole numbers in the key column {self._name!r}, as in the first rows, received something "
                "else; mend the column, or store it as text in a Parquet file."
            )
        values = found.to_pandas(integer_object_nulls=True).to_numpy()
        answers.insert(0, self._name, values)


def _as_integers(keys: pa.Array) -> pa.Array | None:
    if keys.type == pa.null():
        return None
    try:
        return keys.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


@contextlib.contextmanager
def _counted_from(start: int, num_rows: int) -> Iterator[None]:
    """Says in which of the rows a message counts from 1."""
    try:
        yield
    except DataError as error:
        if start == 0:
            raise
        raise DataError(f"In the rows {start + 1:,} to {min(start + IMAGE_ROWS, num_rows):,}: {error}") from error


@contextlib.contextmanager
def _located(chunk: Chunk, source: Source) -> Iterator[None]:
    """Says where in the source the rows are that a message counts from 1."""
    try:
        yield
    except DataError as error:
        if chunk.first_row == 0:
            raise
        last = chunk.first_row + chunk.table.num_rows
        raise DataError(f"In the rows {chunk.first_row + 1:,} to {last:,} of {source.name!r}: {error}") from error


def answers_frame(
    outputs: Mapping[str, NDArray[Any]], schema: DatasetSchema, *, index: pd.Index[Any] | None
) -> pd.DataFrame:
    """Returns the outputs of an exported model as a table.

    Args:
        outputs: ``label`` (num_rows,) and ``probabilities`` (num_rows, num_classes), or ``prediction`` (num_rows,)
            and, with intervals, ``lower`` and ``upper``.
        schema: What the target is.
        index: Index of the table; None for 0, 1, ...
    """
    if schema.target.columns:
        found: dict[str, Any] = {name: outputs[name] for name in schema.target.columns}
        for number, name in enumerate(schema.target.classes):
            found[f"probability of {name}"] = outputs["probabilities"][:, number]
        return pd.DataFrame(found, index=index)
    if "prediction" in outputs:
        named = {name: outputs[name] for name in ("prediction", "lower", "upper") if name in outputs}
        for number, level in enumerate(schema.target.quantiles if "quantiles" in outputs else ()):
            named[f"quantile {level:g}"] = outputs["quantiles"][:, number]
        return pd.DataFrame({name: values.astype(np.float64) for name, values in named.items()}, index=index)
    columns: dict[str, Any] = {"label": outputs["label"]}
    for number, label in enumerate(schema.target.classes):
        columns[f"probability of {label}"] = outputs["probabilities"][:, number]
    return pd.DataFrame(columns, index=index)
