"""Piecewise-linear embeddings of numbers (Gorishniy et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import keras
import numpy as np
import scipy.special
from keras import ops

from search_spaces.layers.learned import Array, LearnedLayer, present, without_missing

MAX_OUTSIDE = 10.0
"""Widths of the outermost bin up to which a value beyond all edges still counts."""

MIN_LEAF_ROWS = 64
MIN_IMPURITY_DECREASE = 1e-4
"""Of the trees that choose target-aware bins (Gorishniy et al., 2022, appendix)."""


class BinRule(StrEnum):
    """Where the edges of the bins lie."""

    QUANTILE = "quantile"
    TARGET = "target"


@keras.saving.register_keras_serializable(package="tamiz")
class PiecewiseLinearEmbedding(LearnedLayer):
    """Embeds every number by how far it has come through each of its column's bins.

    With edges ``b_0 < ... < b_T`` the encoding of ``x`` has the components ``(x - b_{t-1}) / (b_t - b_{t-1})``, at
    least 0 but for the first and at most 1 but for the last (equation 1 of the paper), and the vector is ``encoding @
    kernel + bias`` with a kernel of each column's own. `linear` adds ``x * weight`` and starts the kernel at zero:
    version B of the authors' package, with which a network starts as one without bins.

    Departures: a value beyond all edges counts up to `MAX_OUTSIDE` widths of the outermost bin (without end in the
    paper, where one outlier in a narrow bin drowns every other feature); a missing value (NaN) counts as 0.

    The edges are learned by `adapt` or `learn`, or given. Until then they are the quantiles of a standard normal
    variable. They are weights: saved with the model, and not in the configuration.

    Args:
        size: Length of a number's vector.
        num_bins: Most bins of a column; one with fewer distinct values has fewer.
        rule: QUANTILE: as many rows in each bin. TARGET: the splits of a decision tree that predicts the target.
        linear: Whether ``x * weight`` is added and the kernel starts at zero.
        activation: Name of Keras' activation on the vector; None for none.
        edges: (num_features, num_bins + 1), rising along each row and padded by repeating the last; None to learn.

    Shapes:
        Input (batch, num_features) float; output (batch, num_features, size).
    """

    def __init__(
        self,
        size: int,
        *,
        num_bins: int = 48,
        rule: str = BinRule.QUANTILE,
        linear: bool = True,
        activation: str | None = None,
        edges: Sequence[Sequence[float]] | Array | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given = None if edges is None else np.asarray(edges, np.float32)
        self.num_bins = int(num_bins) if self._given is None else _checked_edges(self._given).shape[1] - 1
        self.size, self.rule, self.linear = int(size), BinRule(rule), bool(linear)
        self.activation = keras.activations.get(activation)
        if self.size < 1:
            raise ValueError(f"size is {self.size}: expected at least 1")
        if self.num_bins < 1:
            raise ValueError(f"num_bins is {self.num_bins}: expected at least 1")

    def build(self, input_shape: Any) -> None:
        """Creates edges ``(num_features, num_bins + 1)``, kernel ``(num_features, num_bins, size)`` and bias."""
        num_features = int(input_shape[-1])
        if self._given is not None and len(self._given) != num_features:
            raise ValueError(
                f"edges are those of {len(self._given)} columns: expected {num_features}, as the input has"
            )
        shares = np.linspace(0.0, 1.0, self.num_bins + 1)
        normal = scipy.special.ndtri(np.clip(shares, 0.001, 0.999)).astype(np.float32)
        start = np.tile(normal, (num_features, 1)) if self._given is None else self._given
        self.edges = self.add_weight(
            name="edges",
            shape=start.shape,
            initializer=lambda shape, dtype=None: ops.cast(ops.reshape(start, shape), dtype or "float32"),
            trainable=False,
            autocast=False,
            dtype="float32",
        )
        # As the authors' package starts them.
        limit = (self.size if self.linear else self.num_bins) ** -0.5
        draw = keras.initializers.RandomUniform(-limit, limit)
        shape = (num_features, self.num_bins, self.size)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="zeros" if self.linear else draw)
        self.bias = self.add_weight(name="bias", shape=(num_features, self.size), initializer=draw)
        if self.linear:
            self.weight = self.add_weight(name="weight", shape=(num_features, self.size), initializer=draw)
        self.built = True

    def learn(self, rows: Array, target: Array | None = None) -> None:
        """Learns the edges.

        Args:
            rows: (num_rows, num_features).
            target: (num_rows, width); needed by target-aware bins.

        Raises:
            ValueError: Target-aware bins have no target.
        """
        if self.rule is BinRule.TARGET and target is None:
            raise ValueError("target-aware bins need the target: expected batches (rows, target), received rows alone")
        edges = np.empty(self.edges.shape, np.float32)
        for column, values in enumerate(np.asarray(rows, np.float64).T):
            if self.rule is BinRule.TARGET:
                found = target_edges(values, np.asarray(target), num_bins=self.num_bins)
            else:
                found = quantile_edges(values, num_bins=self.num_bins)
            edges[column, : len(found)], edges[column, len(found) :] = found, found[-1]
        self.edges.assign(edges)

    def encode(self, x: Any) -> Any:
        """Returns the encoding (num_features, batch, num_bins) float32 of numbers (batch, num_features)."""
        x = ops.expand_dims(ops.transpose(present(x)), -1)
        left, width = self.edges[:, :-1], self.edges[:, 1:] - self.edges[:, :-1]
        real = width > 0
        # The bins of a column stand first, so the last one is that which no other follows.
        follows = ops.concatenate([real[:, 1:], ops.zeros_like(real[:, :1])], axis=1)
        lower = np.where(np.arange(self.num_bins) == 0, -MAX_OUTSIDE, 0.0).astype("float32")
        upper = ops.where(follows, 1.0, 1.0 + MAX_OUTSIDE)
        scale = ops.where(real, 1.0 / ops.where(real, width, 1.0), 0.0)
        share = (x - left[:, None, :]) * scale[:, None, :]
        return ops.minimum(ops.maximum(share, lower), upper[:, None, :])

    def call(self, x: Any) -> Any:
        """Returns the vectors."""
        # Features first: one product for all columns, and only the small result is transposed.
        dtype = self.compute_dtype
        vectors = ops.matmul(ops.cast(self.encode(x), dtype), ops.cast(self.kernel, dtype))
        vectors = ops.transpose(vectors, (1, 0, 2)) + ops.cast(self.bias, dtype)
        if self.linear:
            vectors += ops.cast(ops.expand_dims(present(x), -1), dtype) * ops.cast(self.weight, dtype)
        return self.activation(vectors)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``(batch, num_features, size)``."""
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build a layer of the same shapes; edges are weights."""
        own = {
            "size": self.size,
            "num_bins": self.num_bins,
            "rule": self.rule.value,
            "linear": self.linear,
            "activation": keras.activations.serialize(self.activation),
        }
        return {**super().get_config(), **own}


def quantile_edges(values: Array, *, num_bins: int) -> Array:
    """Returns the distinct quantiles of a column, at least one and at most ``num_bins + 1`` (section 3.2.1).

    Args:
        values: (num_rows,); NaN is left out.
        num_bins: Most bins.
    """
    values = without_missing(values)
    if not values.size:
        return np.zeros(1, np.float32)
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, num_bins + 1)).astype(np.float32))


def target_edges(values: Array, target: Array, *, num_bins: int) -> Array:
    """Returns the ends of a column and the splits of a tree that predicts the target from it (section 3.2.2).

    Args:
        values: (num_rows,); rows with NaN are left out.
        target: (num_rows, width) or (num_rows,): integer class ids, or float values.
        num_bins: Most bins, which are the leaves of the tree.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    known = np.isfinite(np.asarray(values, np.float64))
    x, y = np.asarray(values, np.float32)[known, None], np.asarray(target)[known]
    ends = quantile_edges(values, num_bins=1)
    if len(ends) < 2 or num_bins < 2:
        return ends
    tree_class = DecisionTreeClassifier if np.issubdtype(y.dtype, np.integer) else DecisionTreeRegressor
    tree = tree_class(
        max_leaf_nodes=num_bins,
        # A table of a few hundred rows would have no split at all at the authors' limit.
        min_samples_leaf=max(2, min(MIN_LEAF_ROWS, len(x) // 16)),
        min_impurity_decrease=MIN_IMPURITY_DECREASE,
        random_state=0,
    )
    fitted = tree.fit(x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).tree_
    splits = fitted.threshold[fitted.children_left != fitted.children_right]
    return np.unique(np.concatenate([ends, splits.astype(np.float32)]))


def _checked_edges(edges: Array) -> Array:
    if edges.ndim != 2 or edges.shape[1] < 2 or not np.isfinite(edges).all():
        raise ValueError(f"edges have the shape {edges.shape}: expected finite (num_features, num_bins + 1)")
    steps = np.diff(edges, axis=1)
    # Padding stands at the end of a row: a zero step is followed by zero steps alone.
    if (steps < 0).any() or ((steps[:, 1:] > 0) & (steps[:, :-1] == 0)).any():
        raise ValueError("edges have to rise along each row; only the last one may repeat, as padding")
    return edges
