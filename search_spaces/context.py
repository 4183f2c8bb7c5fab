"""What a space knows of the data it builds networks for; no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from pipelines.schema import Task
from search_spaces.embedding_rule import worth

MIN_REPLICA_BATCH = 16
"""Rows below which a replica spends more time waiting for the others than computing."""

MAX_SAMPLE_ROWS = 20_000
"""Rows of a sample; quantiles of so many are as good as of all, and trees on them take milliseconds a column."""

MAX_SAMPLE_CELLS = 5_000_000
"""Numbers of a sample, which wide tables reach first (20 MB)."""


@dataclass(frozen=True, slots=True, eq=False)
class TableSample:
    """Encoded rows that a network is going to train on, for what is learned before its first step.

    Attributes:
        numeric: (num_rows, num_numeric) float32.
        categorical: (num_rows, num_categorical) int32.
        target: (num_rows, width): integer class ids, or the standardised float32 values of a regression.
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[np.int32]
    target: NDArray[Any]

    @property
    def features(self) -> dict[str, NDArray[Any]]:
        """The features by kind, as networks take them; a kind that the table does not have is absent."""
        kinds: dict[str, NDArray[Any]] = {"numeric": self.numeric, "categorical": self.categorical}
        return {name: array for name, array in kinds.items() if array.shape[1]}

    @classmethod
    def drawn(
        cls, *, numeric: NDArray[Any], categorical: NDArray[Any], target: NDArray[Any], seed: int = 0
    ) -> Self:
        """Returns all rows, or a random part of them where there are more than a sample needs.

        The least and the largest value of a regression's target are in it: answers are held inside its range.

        Args:
            numeric: (num_rows, num_numeric).
            categorical: (num_rows, num_categorical).
            target: (num_rows, width).
            seed: Chooses the rows.
        """
        width = max(1, numeric.shape[1] + categorical.shape[1])
        most = min(MAX_SAMPLE_ROWS, max(1_000, MAX_SAMPLE_CELLS // width))
        rows = np.arange(len(target))
        if len(rows) > most:
            rows = np.random.default_rng(seed).choice(len(rows), size=most, replace=False)
            if np.issubdtype(target.dtype, np.floating):
                ends = np.unique(np.concatenate([target.argmin(axis=0), target.argmax(axis=0)]))
                rows = np.concatenate([ends, rows[~np.isin(rows, ends)][: most - len(ends)]])
            rows = np.sort(rows)
        return cls(numeric[rows], categorical[rows], target[rows])


class TrainingContext:
    """What every space knows of its data, whatever that is: the task, how much of it there is, and how it is batched.

    `TableContext` and `search_spaces.image_context.ImageContext` are the two kinds.

    Attributes:
        task: What is predicted.
        num_classes: Number of classes; 0 for regression.
        num_training_rows: Rows that one epoch sees.
        max_epochs: Epochs that learning-rate schedules are laid out for.
        num_replicas: Copies of a network that train in step.
        judged_by_labels: Whether the objective looks at the predicted class alone, as accuracy does.
        num_targets: Values that a regression predicts.
        quantiles: Levels of a quantile regression, rising; empty for any other task.
        searches_balance: Whether how classes are balanced is a hyperparameter.
        num_numeric: Width of the encoded numeric matrix ``(batch, num_numeric)``; 0 where there are no numbers.
        cardinalities: Number of ids of every encoded categorical column, bucket 0 (missing) and 1 (other) included.
    """

    __slots__ = ()

    # Without values: what a class above a dataclass has under the name of a field would become its default.
    task: Task
    num_classes: int
    num_training_rows: int
    max_epochs: int
    num_replicas: int
    judged_by_labels: bool
    searches_balance: bool
    num_targets: int
    quantiles: tuple[float, ...]
    num_numeric: int
    cardinalities: tuple[int, ...]

    @property
    def num_outputs(self) -> int:
        """Width of the last layer: one logit a class or label, one for two classes, one value a target or quantile."""
        if self.task in (Task.MULTICLASS, Task.MULTILABEL):
            return self.num_classes
        return 1 if self.task is Task.BINARY else len(self.quantiles) or self.num_targets

    @property
    def answers_values(self) -> bool:
        """Whether outputs are values of the target itself: those of a regression that is not one of quantiles."""
        return not self.task.is_classification and not self.quantiles

    def global_batch(self, batch_size: int) -> int:
        """Rows of one step over all replicas, for a searched `batch_size`.

        The batch that is searched is global: replicas divide it, so more devices change the speed and not the
        training. Only where a replica would get fewer than `MIN_REPLICA_BATCH` rows is the batch raised (and the
        learning rate with it, see `search_spaces.recipe`), and it is always a multiple of the number of replicas
        and never more than the table has.
        """
        rows = min(batch_size, self.num_training_rows)
        if self.num_replicas == 1:
            return rows
        wanted = max(rows, MIN_REPLICA_BATCH * self.num_replicas)
        most = self.num_training_rows // self.num_replicas * self.num_replicas
        return max(self.num_replicas, min(wanted // self.num_replicas * self.num_replicas, most))

    def steps_per_epoch(self, batch_size: int) -> int:
        """Training steps of one epoch; the last partial batch is dropped (a full one always exists)."""
        return max(1, self.num_training_rows // self.global_batch(batch_size))

    def total_steps(self, batch_size: int) -> int:
        """Training steps that the whole schedule is laid out for."""
        return self.steps_per_epoch(batch_size) * self.max_epochs

    def embedding_sizes(self) -> list[int]:
        """Lengths of the longest vector worth searching: powers of two, to what the largest column is worth."""
        most = max(worth(max(self.cardinalities, default=1)), 4.0)
        return [2**k for k in range(1, min(5, math.ceil(math.log2(most))) + 1)]

    def batch_sizes(self) -> list[int]:
        """Powers of two worth searching: at least 8 steps an epoch where the table has the rows, at most 1,024."""
        limit = max(16, self.num_training_rows // 8)
        largest = 1024 if self.num_training_rows > 200_000 else 512 if self.num_training_rows > 20_000 else 256
        # Tiny batches of a large table cost minutes an epoch and find nothing that a larger batch does not.
        smallest = 128 if self.num_training_rows > 20_000 else 64 if self.num_training_rows > 8_000 else 16
        return [2**k for k in range(int(math.log2(smallest)), 11) if 2**k <= min(limit, largest)] or [16]


@final
@dataclass(frozen=True, slots=True)
class TableContext(TrainingContext):
    """The encoded table and the task that a tabular space builds networks for.

    Attributes:
        task: What is predicted.
        num_classes: Number of classes; 0 for regression.
        num_numeric: Width of the encoded numeric matrix ``(batch, num_numeric)``.
        cardinalities: Number of ids of every encoded categorical column, bucket 0 (missing) and 1 (other) included.
        num_training_rows: Rows that one epoch sees.
        max_epochs: Epochs that learning-rate schedules are laid out for.
        num_replicas: Copies of a network that train in step.
        sample: Rows that the network is going to train on; None where a space is only declared or measured. What a
            space declares and the shapes that it builds do not depend on it.
        judged_by_labels: Whether the objective looks at the predicted class alone, as accuracy does.
        num_targets: Values that a regression predicts.
        quantiles: Levels of a quantile regression, rising; empty for any other task.
        searches_balance: Whether how classes are balanced is a hyperparameter.
    """

    task: Task
    num_classes: int
    num_numeric: int
    cardinalities: tuple[int, ...]
    num_training_rows: int
    max_epochs: int
    num_replicas: int = 1
    sample: TableSample | None = None
    judged_by_labels: bool = False
    num_targets: int = 1
    quantiles: tuple[float, ...] = ()
    searches_balance: bool = False
