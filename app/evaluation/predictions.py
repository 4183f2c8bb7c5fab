"""A model's answers beside the truth, checked once so that no metric has to check again."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.schema import Task

_SUM_TOLERANCE = 1e-3  # a float32 softmax over thousands of classes sums to 1 within far less than this


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a model answered on some rows, and what is true there.

    Args:
        task: binary, multiclass or regression.
        y: `(num_rows,)`; class ids in [0, num_classes) or the target's values in the user's units.
        probabilities: `(num_rows, num_classes)`, rows summing to 1; two columns for a binary task, the
            second one being the positive class. None for regression.
        labels: `(num_rows,)` predicted class ids. None: the most probable class.
        values: `(num_rows,)` predicted values of a regression. None for classification.
        mape_epsilon: the least |y| that MAPE divides by, in the target's units (see `metrics.mape_epsilon`).
        weights: `(num_rows,)` how much each row counts, at least 0 and not all 0; None for all alike.
        quantiles: `(num_rows, num_levels)` predicted quantiles of a regression, rising; None for no quantiles.
        levels: what the quantiles are, rising in (0, 1); () for none.
        outputs: names of several targets; all arrays then have a column for each: `y`, `values` or `probabilities`
            (that a label holds, each by itself) and `labels` (0 or 1). () for one target.

    Raises:
        ValueError: shapes that do not fit, a missing answer, or numbers that are not finite.
    """

    task: Task
    y: NDArray[np.generic]
    probabilities: NDArray[np.floating] | None = None
    labels: NDArray[np.integer] | None = None
    values: NDArray[np.floating] | None = None
    mape_epsilon: float = 0.0
    weights: NDArray[np.floating] | None = None
    quantiles: NDArray[np.floating] | None = None
    levels: tuple[float, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs:
            self._check_outputs()
            return
        if self.task not in (Task.BINARY, Task.MULTICLASS, Task.REGRESSION):
            raise ValueError(
                f"expected a binary, multiclass or regression task, got {self.task.value}; "
                "no metric is defined for it yet"
            )
        if self.y.ndim != 1 or not len(self.y):
            raise ValueError(
                f"expected y of shape (num_rows,) with at least one row, got {self.y.shape}; "
                "pass one target a row"
            )
        self._check_weights()
        if self.task is Task.REGRESSION:
            self._check_values()
        else:
            self._check_classes()

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        if self.task is Task.REGRESSION:
            return 0
        if self.outputs:
            return len(self.outputs)
        if self.probabilities is not None:
            return int(self.probabilities.shape[1])
        return max(2, 1 + int(max(self.y.max(), self.predicted_labels.max())))

    @property
    def predicted_labels(self) -> NDArray[np.integer]:
        """Predicted class ids, `(num_rows,)`: `labels`, or the most probable class."""
        if self.labels is not None:
            return self.labels
        if self.probabilities is None:
            raise ValueError(f"expected a classification, got {self.task.value}; a regression has no labels")
        most_probable: NDArray[np.integer] = self.probabilities.argmax(axis=1)
        return most_probable

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """How much each row counts, `(num_rows,)`."""
        return np.ones(self.num_rows) if self.weights is None else self.weights.astype(np.float64)

    def take(self, rows: NDArray[np.integer]) -> Predictions:
        """The same predictions on some rows only; `rows` holds row numbers, repeats allowed."""
        return dataclasses.replace(
            self,
            y=self.y[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            labels=None if self.labels is None else self.labels[rows],
            values=None if self.values is None else self.values[rows],
            weights=None if self.weights is None else self.weights[rows],
            quantiles=None if self.quantiles is None else self.quantiles[rows],
        )

    def singles(self) -> tuple[Predictions, ...]:
        """The predictions of each of several targets; a label is a binary task of its own."""
        return tuple(self._single(place) for place in range(len(self.outputs)))

    def _single(self, place: int) -> Predictions:
        held = None if self.probabilities is None else self.probabilities[:, place]
        return Predictions(
            task=Task.REGRESSION if self.task is Task.REGRESSION else Task.BINARY,
            y=self.y[:, place],
            values=None if self.values is None else self.values[:, place],
            probabilities=None if held is None else np.stack([1.0 - held, held], axis=1),
            labels=None if self.labels is None else self.labels[:, place],
            mape_epsilon=self.mape_epsilon,
            weights=self.weights,
        )

    def _check_outputs(self) -> None:
        if self.task not in (Task.MULTILABEL, Task.REGRESSION):
            raise ValueError(f"expected several targets of a multilabel or regression task, got {self.task.value}")
        wanted = (len(self.y), len(self.outputs))
        for name in ("y", "values", "probabilities", "labels"):
            array = getattr(self, name)
            if array is not None:
                _check_shape(name, array, wanted)
        self.singles()  # each checks its own

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        _check_shape("weights", self.weights, (self.num_rows,))
        _check_finite("weights", self.weights)
        if self.weights.min() < 0 or not self.weights.any():
            raise ValueError(
                f"expected weights of at least 0 and one above it, got numbers from {self.weights.min():.4g} to "
                f"{self.weights.max():.4g}; pass None where all rows count alike"
            )

    def _check_values(self) -> None:
        if self.values is None:
            raise ValueError(
                "expected values of shape (num_rows,) for a regression, got none; pass values=..."
            )
        _check_shape("values", self.values, (self.num_rows,))
        _check_finite("y", self.y)
        _check_finite("values", self.values)
        if self.quantiles is not None:
            _check_shape("quantiles", self.quantiles, (self.num_rows, len(self.levels)))
            _check_finite("quantiles", self.quantiles)

    def _check_classes(self) -> None:
        if not np.issubdtype(self.y.dtype, np.integer):
            raise ValueError(f"expected y as integer class ids, got {self.y.dtype}; encode the target first")
        if self.probabilities is None and self.labels is None:
            raise ValueError(
                "expected probabilities or labels for a classification, got neither; "
                "pass probabilities=(num_rows, num_classes)"
            )
        if self.probabilities is not None:
            self._check_probabilities(self.probabilities)
        if self.labels is not None:
            _check_shape("labels", self.labels, (self.num_rows,))
        for name, ids in (("y", self.y), ("labels", self.predicted_labels)):
            if ids.min() < 0 or ids.max() >= self.num_classes:
                raise ValueError(
                    f"expected {name} in [0, {self.num_classes}), got {ids.min()} to {ids.max()}; "
                    "encode every row with the same classes"
                )
        if self.task is Task.BINARY and self.num_classes != 2:
            raise ValueError(
                f"expected 2 classes for a binary task, got {self.num_classes}; "
                "pass one column of probabilities a class"
            )

    def _check_probabilities(self, probabilities: NDArray[np.floating]) -> None:
        if probabilities.ndim != 2 or len(probabilities) != self.num_rows or probabilities.shape[1] < 2:
            raise ValueError(
                f"expected probabilities of shape ({self.num_rows}, num_classes), "
                f"got {probabilities.shape}; pass one column a class"
            )
        _check_finite("probabilities", probabilities)
        sums = probabilities.sum(axis=1, dtype=np.float64)
        if probabilities.min() < 0 or np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError(
                "expected probabilities in [0, 1] that sum to 1 in every row, got numbers from "
                f"{probabilities.min():.4g} to {probabilities.max():.4g}; apply softmax to logits first"
            )


def _check_shape(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"expected {name} of shape {shape}, got {array.shape}; pass one answer for every row of y"
        )


def _check_finite(name: str, array: NDArray[np.generic]) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    bad = np.flatnonzero(~(finite if finite.ndim == 1 else finite.all(axis=1)))
    raise ValueError(
        f"expected finite numbers in {name}, got NaN or infinity in {len(bad)} of {len(array)} rows "
        f"(the first is row {bad[0]}); the training diverged or the data holds such numbers"
    )
