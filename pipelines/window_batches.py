"""Windows of time series as batches for sequence models (TensorFlow)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.column_values import numbers_of, plain_array, require_column
from pipelines.errors import DataError
from pipelines.input_pipeline import as_written, training_batches
from pipelines.windows import WindowSpec


def window_batches(
    table: pa.Table, rows: NDArray[np.intp], spec: WindowSpec, *, batch_size: int, seed: int | None = None
) -> tf.data.Dataset:
    """Returns windows batch by batch; the series are in memory once, and a batch is gathered from them.

    Args:
        table: The rows of the series, numbers alone in the columns that windows have.
        rows: Row numbers ``(num_windows, context + horizon)``, such as ``Windows.rows`` of one split.
        spec: What windows are made of; static columns other than that of the series are in ``static``.
        batch_size: Windows of a batch.
        seed: Endless shuffled batches of exactly that size, a function of the seed alone; None for one pass in order.

    Returns:
        Batches of ``past`` (batch, context, 1 + num_past), the target first; ``ahead`` (batch, horizon,
        num_known_future); ``static`` (batch, num_static); and the target (batch, horizon); all float32, NaN where a
        value is missing.

    Raises:
        DataError: A column holds something else than numbers.
        ValueError: There are fewer windows than a shuffled batch has.
    """
    static = [name for name in spec.static if name != spec.series_id]
    series = {
        "past": _numbers(table, spec.lagged),
        "ahead": _numbers(table, spec.known_future),
        "static": _numbers(table, static),
    }
    places = tf.constant(rows, tf.int64)

    def gathered(window: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        known, coming = window[:, : spec.context], window[:, spec.context :]
        inputs = {
            "past": tf.gather(series["past"], known),
            "ahead": tf.gather(series["ahead"], coming),
            "static": tf.gather(series["static"], known[:, -1]),
        }
        return inputs, tf.gather(series["past"][:, 0], coming)

    if seed is None:
        return tf.data.Dataset.from_tensor_slices(places).batch(batch_size).map(as_written(gathered)).prefetch(2)
    batches = training_batches(places, num_rows=len(rows), batch_size=batch_size, seed=seed)
    return batches.map(as_written(gathered)).prefetch(2)


def _numbers(table: pa.Table, names: tuple[str, ...] | list[str]) -> tf.Tensor:
    columns = []
    for name in names:
        array = plain_array(table, require_column(table, name))
        if array.type not in (pa.int64(), pa.float64(), pa.bool_(), pa.null()):
            raise DataError(f"Expected numbers in column {name!r} of the windows, received {array.type}.")
        columns.append(numbers_of(array).astype(np.float32))
    return tf.constant(np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), np.float32))
