"""Answers of an exported model for files and tables, from a process that holds TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.config import ExperimentConfig
from app.data_stage import Source, read_source
from app.errors import RunDirectoryError, WorkerError
from app.execution.local_executor import LocalExecutor
from app.execution.messages import Predict, Predicted
from pipelines.raw_columns import raw_columns
from pipelines.schema import DatasetSchema

OUTPUT_FORMATS = (".parquet", ".csv")


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

    def predict(self, data: Source) -> pd.DataFrame:
        """Returns one row of answers for each row of `data`.

        Raises:
            DataError: A column is missing or of another type.
            WorkerError: The model cannot be loaded.
        """
        table = read_source(data, self._config, schema=self._schema).table
        columns = raw_columns(table, self._schema)
        reply = self._executor.call(Predict(directory=str(self._saved_model.absolute()), columns=columns))
        if not isinstance(reply, Predicted):
            raise WorkerError(f"the worker answered {type(reply).__name__}: expected Predicted")
        index = data.index if isinstance(data, pd.DataFrame) else None
        return answers_frame(reply.outputs, self._schema, index=index)

    def close(self) -> None:
        """Ends the process."""
        self._executor.close()


def answers_frame(
    outputs: Mapping[str, NDArray[Any]], schema: DatasetSchema, *, index: pd.Index[Any] | None
) -> pd.DataFrame:
    """Returns the outputs of an exported model as a table.

    Args:
        outputs: ``label`` (num_rows,) and ``probabilities`` (num_rows, num_classes), or ``prediction`` (num_rows,).
        schema: What the target is.
        index: Index of the table; None for 0, 1, ...
    """
    if "prediction" in outputs:
        return pd.DataFrame({"prediction": outputs["prediction"].astype(np.float64)}, index=index)
    columns: dict[str, Any] = {"label": outputs["label"]}
    for number, label in enumerate(schema.target.classes):
        columns[f"probability of {label}"] = outputs["probabilities"][:, number]
    return pd.DataFrame(columns, index=index)


def check_output(path: Path) -> None:
    """Checks that answers can be written to `path`.

    Raises:
        RunDirectoryError: The format is unknown or the folder is missing.
    """
    if path.suffix not in OUTPUT_FORMATS:
        raise RunDirectoryError(f"cannot write {path}: expected a name ending in {' or '.join(OUTPUT_FORMATS)}")
    if not path.parent.is_dir():
        raise RunDirectoryError(f"cannot write {path}: the folder {path.parent} does not exist")


def write_answers(frame: pd.DataFrame, path: Path) -> None:
    """Writes answers to a Parquet or CSV file that is there whole or not at all.

    Raises:
        RunDirectoryError: The place cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
