"""From raw columns to what a model eats, in graph operations only, so that it travels inside the SavedModel (R4).

Notation: B rows in a batch, N numeric columns, Q of them mapped by quantiles with at most K knots.
Columns are stacked first and encoded together: the number of operations does not grow with N.
A row is encoded to the same bits whatever the batch around it: only element-wise arithmetic, which IEEE 754 fixes, and
table look-ups are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.date_encoder import DateEncoder
from pipelines.image_decoder import ImageDecoder
from pipelines.preprocessing import (
    MAX_DEVIATIONS,
    MAX_MAGNITUDE,
    CategoricalEncoding,
    PreprocessingState,
    Scaling,
)
from pipelines.schema import RawType
from pipelines.target_encoding import TargetEncoding
from pipelines.text_encoder import TextEncoder

# TensorFlow publishes no types; this is the edge at which its tensors are Any.
Tensor = Any

_OTHER_ID = 1
_TEXT_BATCH = 1_024  # a batch of texts has an entry for every n-gram


class Encoder(tf.Module):
    """Encodes raw columns with a learned state.

    Args:
        state: What ``fit_preprocessing`` learned.
        alive: Called before each batch of ``encode_in_batches`` and each part of the images: millions of rows take
            long, and whoever waits wants to know that the work goes on.

    Example:
        ``Encoder(state)({"age": tf.constant([39.0]), "job": tf.constant(["clerk"])})``
    """

    def __init__(self, state: PreprocessingState, *, alive: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="tamiz_encoder")
        self.state = state
        self.alive = alive
        self.vocabularies = [_id_table(column.vocabulary, column.raw_type) for column in state.categorical]
        self._dates = [DateEncoder(column) for column in state.datetimes]
        self._texts = [TextEncoder(column) for column in state.texts]
        self.images = {column.name: ImageDecoder(column, alive=alive) for column in state.images}
        self.mean_targets = [_MeanTargets(column) for column in state.targets]
        numeric = state.numeric
        self._fill = np.array([column.fill for column in numeric], np.float32)
        self._mean = np.array([column.mean for column in numeric], np.float32)
        self._inverse_scale = np.array([column.inverse_scale for column in numeric], np.float32)
        self._indicators = [index for index, column in enumerate(numeric) if column.has_indicator]
        quantile = [index for index, column in enumerate(numeric) if column.scaling is not Scaling.STANDARD]
        standard = [index for index, column in enumerate(numeric) if column.scaling is Scaling.STANDARD]
        # Arrays, as TensorFlow takes an empty list for floats.
        self._standard, self._quantile = np.array(standard, np.int32), quantile
        # Both groups are computed apart and put back in the order of the columns by one gather.
        self._order = np.argsort(np.array(standard + quantile, np.int32)).astype(np.int32)
        self._knots, self._heights = _padded_knots(state, quantile)
        self._traced: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
        self._traced_names: list[str] = []

    def __call__(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode a batch.

        Args:
            raw: Column name to a tensor of shape ``(batch,)``, float32 or string; further columns are ignored.

        Returns:
            ``numeric``: float32 of shape ``(batch, num_numeric)``, finite whatever came in;
            ``categorical``: int32 of shape ``(batch, num_categorical)``; where there are images ``image``: uint8 of
            shape ``(batch, height, width, channels)``.

        Raises:
            ValueError: A column of the state is not among the raw ones.
        """
        absent = [name for name in self.state.raw_names if name not in raw]
        if absent:
            raise ValueError(f"Expected the raw columns {sorted(absent)!r}, received {sorted(raw)!r}; add them.")
        batch = tf.shape(next(iter(raw.values())))[:1]
        encoded = {"numeric": self._encode_numbers(raw, batch), "categorical": self._encode_categories(raw, batch)}
        for name, decode in self.images.items():
            if name in raw:
                encoded["image"] = decode(raw[name])
        return encoded

    def encode_in_batches(
        self, raw: Mapping[str, NDArray[np.generic]], *, batch_size: int = 8_192
    ) -> dict[str, NDArray[Any]]:
        """Encode whole columns, a batch at a time so that memory stays bounded.

        Args:
            raw: What ``raw_columns`` returned, arrays of shape ``(num_rows,)``.
            batch_size: Rows encoded at once, at least 1.

        Returns:
            The arrays of ``__call__`` for all rows.
        """
        num_rows = len(next(iter(raw.values()))) if raw else 0
        batch_size = min(batch_size, _TEXT_BATCH) if self.state.texts or self.state.images else batch_size
        parts = []
        for start in range(0, max(num_rows, 1), batch_size):
            self.alive()
            names = [*self.state.raw_names, *(name for name in self.images if name in raw)]
            batch = {name: _tensor(raw[name][start : start + batch_size]) for name in names}
            # Images are decoded by themselves where they are many, and with the other columns where they are few.
            if self._traced is None or list(self._traced_names) != names:
                self._traced = self._trace({name: tensor.dtype for name, tensor in batch.items()})
                self._traced_names = names
            parts.append(self._traced(batch))
        return {key: np.concatenate([part[key].numpy() for part in parts]) for key in parts[0]}

    def _trace(self, dtypes: Mapping[str, Any]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        """Return the compiled encoding for batches of any size; tracing a wide table takes a second, so once."""
        specs = {name: tf.TensorSpec((None,), dtype) for name, dtype in dtypes.items()}
        encode = tf.function(self.__call__, autograph=False, input_signature=[specs])
        # Behind a plain function: as an attribute it would be written into every SavedModel that tracks this module.
        return lambda batch: encode(batch)

    def _encode_numbers(self, raw: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        blocks, indicators = [], []
        if self.state.numeric:
            x = tf.stack([tf.cast(raw[column.name], tf.float32) for column in self.state.numeric], axis=1)  # (B, N)
            missing = tf.math.is_nan(x)
            x = tf.where(missing, self._fill, tf.clip_by_value(x, -MAX_MAGNITUDE, MAX_MAGNITUDE))
            blocks.append(self._scale(x))
            if self._indicators:
                indicators.append(tf.gather(tf.cast(missing, tf.float32), self._indicators, axis=1))
        for column, encoder in zip(self.state.datetimes, self._dates, strict=True):
            parts, missing = encoder(raw[column.name])
            blocks.append(parts)
            if column.has_indicator:
                indicators.append(tf.cast(missing, tf.float32)[:, tf.newaxis])
        learned = [encode(raw[column.name]) for column, encode in zip(self.state.texts, self._texts, strict=True)]
        learned += [table(raw[table.column.name]) for table in self.mean_targets]
        if not blocks and not learned:
            return tf.zeros(tf.concat([batch, [0]], axis=0), tf.float32)
        return tf.concat(blocks + indicators + learned, axis=1)

    def _scale(self, x: Tensor) -> Tensor:
        standard = tf.gather(x, self._standard, axis=1) if self._quantile else x
        rows = self._standard
        standard = (standard - self._mean[rows]) * self._inverse_scale[rows]
        standard = tf.clip_by_value(standard, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        if not self._quantile:
            return standard
        mapped = self._interpolate(tf.gather(x, self._quantile, axis=1))
        return tf.gather(tf.concat([standard, mapped], axis=1), self._order, axis=1)

    def _interpolate(self, x: Tensor) -> Tensor:
        """Return the line through ``(knots, heights)`` at x, constant outside; shapes ``(B, Q)``."""
        num_knots = self._knots.shape[1]
        values = tf.transpose(x)  # (Q, B): searchsorted wants the sequences along the last axis
        right = tf.searchsorted(self._knots, values, side="right")  # in [0, K]
        right = tf.clip_by_value(right, 1, num_knots - 1)
        low, high = (tf.gather(self._knots, index, axis=1, batch_dims=1) for index in (right - 1, right))
        bottom, top = (tf.gather(self._heights, index, axis=1, batch_dims=1) for index in (right - 1, right))
        # Padding repeats the last height at rising knots, so that the line is flat there.
        share = tf.clip_by_value((values - low) / (high - low), 0.0, 1.0)
        return tf.transpose(bottom + share * (top - bottom))

    def _encode_categories(self, raw: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        if not self.state.categorical:
            return tf.zeros(tf.concat([batch, [0]], axis=0), tf.int32)
        ids = [
            _look_up(table, column, raw[column.name])
            for table, column in zip(self.vocabularies, self.state.categorical, strict=True)
        ]
        return tf.stack(ids, axis=1)


class _MeanTargets(tf.Module):
    """The mean targets of one column's categories, by look-up."""

    def __init__(self, column: TargetEncoding) -> None:
        super().__init__(name="tamiz_mean_targets")
        self.column = column
        self.table = _id_table(column.categories, column.raw_type)
        rows = [column.missing, column.other, *column.means]
        self._means = np.array(rows, np.float32).reshape(len(rows), len(column.outputs))

    def __call__(self, raw: Tensor) -> Tensor:
        """Return float32 of shape ``(batch, num_outputs)``."""
        return tf.gather(self._means, _ids_of(self.table, self.column.raw_type, raw))


def _id_table(categories: Sequence[str], raw_type: RawType) -> Any:
    """Return a table that numbers categories from 2; missing is 0, whatever else is 1."""
    ids = np.arange(2, 2 + len(categories), dtype=np.int32)
    if raw_type is RawType.FLOAT32:
        keys = np.array([int(value) for value in categories], np.int64)
    else:
        # The empty text is the missing value.
        keys = np.array([b"", *(value.encode("utf-8") for value in categories)], object)
        ids = np.concatenate([[0], ids]).astype(np.int32)
    # An initializer wants at least one pair; no float32 is a whole number of this size and also below 2**31.
    if not keys.size:
        keys, ids = np.array([np.iinfo(np.int64).min], np.int64), np.array([_OTHER_ID], np.int32)
    pairs = tf.lookup.KeyValueTensorInitializer(keys, ids)
    return tf.lookup.StaticHashTable(pairs, default_value=_OTHER_ID)


def _look_up(table: Any, column: CategoricalEncoding, raw: Tensor) -> Tensor:
    if column.truths:  # a request may spell them as its language does: True, TRUE
        raw = tf.strings.lower(raw)
    ids = _ids_of(table, column.raw_type, raw)
    if not column.num_buckets:
        return ids
    number = raw if column.raw_type is RawType.STRING else tf.strings.as_string(tf.cast(raw, tf.float32))
    bucket = tf.strings.to_hash_bucket_fast(tf.strings.strip(number), column.num_buckets)
    return tf.where(ids == _OTHER_ID, tf.cast(bucket, tf.int32) + len(column.vocabulary) + 2, ids)


def _ids_of(table: Any, raw_type: RawType, raw: Tensor) -> Tensor:
    if raw_type is RawType.STRING:
        return table.lookup(tf.strings.strip(raw))
    number = tf.cast(raw, tf.float32)
    # Whole numbers beyond 2**24 are not told apart by float32; such columns are text. The cast of what does not fit
    # an int64 is undefined, so it is replaced first.
    is_whole = (tf.math.round(number) == number) & (tf.abs(number) <= 2.0**31)
    ids = table.lookup(tf.cast(tf.where(is_whole, number, 0.0), tf.int64))
    return tf.where(tf.math.is_nan(number), 0, tf.where(is_whole, ids, _OTHER_ID))


def _padded_knots(state: PreprocessingState, quantile: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return knots and heights of shape ``(Q, K)``; short rows are padded by a flat line beyond all clipped values."""
    length = max((len(state.numeric[index].knots) for index in quantile), default=0) + 1
    knots = np.empty((len(quantile), length), np.float32)
    heights = np.empty((len(quantile), length), np.float32)
    for row, index in enumerate(quantile):
        column = state.numeric[index]
        num = len(column.knots)
        knots[row, :num], heights[row, :num] = column.knots, column.heights
        # Strictly rising, so that no division by zero can happen.
        knots[row, num:] = MAX_MAGNITUDE * (2.0 + np.arange(length - num))
        heights[row, num:] = column.heights[-1]
    return knots, heights


def _tensor(values: NDArray[np.generic]) -> Tensor:
    # Stated, because TensorFlow takes an empty array of objects for numbers.
    return tf.constant(values, tf.string if values.dtype == object else tf.float32)
