"""Numbers mapped to a standard normal variable by their rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from keras import ops

from search_spaces.layers.learned import Array, LearnedLayer, without_missing

EDGE_SHARE = 1e-7
"""Share at which the ends of a column stand; +-5.2 standard deviations."""

MIN_QUANTILES = 10
"""Learned from any table, however short."""


@keras.saving.register_keras_serializable(package="tamiz")
class QuantileNormal(LearnedLayer):
    """Maps every column to a standard normal variable, as scikit-learn's QuantileTransformer does.

    Between two learned quantiles the share of rows below a value is interpolated, and the value becomes the normal
    quantile of that share. A value that holds many rows stands at the middle of their share: the limit of what the
    authors of tabular networks do, who add a little noise to the training rows. Gorishniy et al. (2021, 2022, 2024)
    use it before all their networks. A missing value (NaN) becomes 0, the median.

    The quantiles are learned by `adapt` or `learn`, or given. Until then they are those of a standard normal variable,
    and the layer changes little. They are weights: saved with the model, and not in the configuration. Their number
    does not depend on the rows, so that one network serves tables of any length: few rows teach fewer quantiles, and
    the rest lies on the lines between.

    Args:
        num_quantiles: Quantiles of every column.
        rows_per_quantile: Rows that a learned quantile stands on at least, as the authors of TabM have it; but ten
            quantiles are learned from any table.
        quantiles: (num_features, num_quantiles), not falling along each row; None to learn.

    Shapes:
        Input (batch, num_features) float; output the same.
    """

    def __init__(
        self,
        num_quantiles: int = 1_000,
        *,
        rows_per_quantile: int = 30,
        quantiles: Sequence[Sequence[float]] | Array | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given = None if quantiles is None else np.asarray(quantiles, np.float32)
        if self._given is not None:
            if self._given.ndim != 2 or not (np.diff(self._given, axis=1) >= 0).all():
                raise ValueError("quantiles have to be (num_features, num_quantiles) and must not fall along a row")
            num_quantiles = self._given.shape[1]
        self.num_quantiles, self.rows_per_quantile = int(num_quantiles), int(rows_per_quantile)
        if self.num_quantiles < 2:
            raise ValueError(f"num_quantiles is {self.num_quantiles}: expected at least 2")
        if self.rows_per_quantile < 1:
            raise ValueError(f"rows_per_quantile is {self.rows_per_quantile}: expected at least 1")

    def build(self, input_shape: Any) -> None:
        """Creates the quantiles ``(num_features, num_quantiles)``."""
        num_features = int(input_shape[-1])
        if self._given is not None and len(self._given) != num_features:
            raise ValueError(
                f"quantiles are those of {len(self._given)} columns: expected {num_features}, as the input has"
            )
        shares = np.linspace(0.0, 1.0, self.num_quantiles)
        normal = scipy.special.ndtri(np.clip(shares, EDGE_SHARE, 1.0 - EDGE_SHARE)).astype(np.float32)
        start = np.tile(normal, (num_features, 1)) if self._given is None else self._given
        self.quantiles = self.add_weight(
            name="quantiles",
            shape=start.shape,
            initializer=lambda shape, dtype=None: ops.cast(ops.reshape(start, shape), dtype or "float32"),
            trainable=False,
            autocast=False,
            dtype="float32",
        )
        self.built = True

    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Learns the quantiles.

        Args:
            rows: (num_rows, num_features).
            target: Not used.
        """
        del target
        shares = np.linspace(0.0, 1.0, self.num_quantiles)
        quantiles = np.zeros(self.quantiles.shape, np.float32)
        for column, values in enumerate(np.asarray(rows).T):
            known = without_missing(values)
            if known.size:
                num = min(self.num_quantiles, max(known.size // self.rows_per_quantile, MIN_QUANTILES))
                learned = np.linspace(0.0, 1.0, num)
                found = np.interp(shares, learned, np.quantile(known, learned))
                # Rounding must not make a row of quantiles fall.
                quantiles[column] = np.maximum.accumulate(found.astype(np.float32))
        self.quantiles.assign(quantiles)

    def call(self, x: Any) -> Any:
        """Returns the normal quantiles."""
        # Sequences along the last axis, as the search wants them.
        values = ops.transpose(ops.cast(x, "float32"))
        missing = ops.isnan(values)
        values = ops.where(missing, 0.0, values)
        quantiles = tf.convert_to_tensor(self.quantiles)
        last = self.num_quantiles - 1
        below = tf.searchsorted(quantiles, values, side="left")
        through = tf.searchsorted(quantiles, values, side="right")
        lower = tf.gather(quantiles, tf.clip_by_value(below - 1, 0, last), axis=1, batch_dims=1)
        upper = tf.gather(quantiles, tf.clip_by_value(below, 0, last), axis=1, batch_dims=1)
        gap = upper - lower
        share = tf.where(gap > 0, (values - lower) / tf.where(gap > 0, gap, 1.0), 0.0)
        between = tf.cast(below - 1, tf.float32) + share
        tied = 0.5 * tf.cast(below + through - 1, tf.float32)
        rank = tf.clip_by_value(tf.where(through > below, tied, between), 0.0, float(last))
        # From the nearer end: a share just below 1 has no digits left in float32, one just above 0 has all.
        tail = tf.maximum(tf.minimum(rank, last - rank) / last, EDGE_SHARE)
        normal = tf.math.ndtri(tf.minimum(tail, 0.5))
        normal = tf.where(missing, 0.0, tf.where(2.0 * rank > last, -normal, normal))
        return ops.cast(ops.transpose(normal), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build a layer of the same shapes; quantiles are weights."""
        own = {"num_quantiles": self.num_quantiles, "rows_per_quantile": self.rows_per_quantile}
        return {**super().get_config(), **own}
