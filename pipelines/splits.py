"""Training, validation and test rows by a hash of the row and the seed, before anything looks at the data (R6).

Rows are ranked by their hash inside each stratum (class, or decile of a number) and the ranks are cut. Identical rows
have one hash and stay together, and a row keeps its side of the cut however the table is ordered.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, numbers_of, plain_array, require_column
from pipelines.datetime_text import recognise_format, timestamps_of
from pipelines.errors import DataError
from pipelines.raw_columns import encode_target
from pipelines.row_hash import hash_column, hash_rows, mix
from pipelines.schema import TargetSpec

_NUM_DECILES = 10


class Split(IntEnum):
    """The part that a row plays."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def assign_splits(
    table: pa.Table,
    target: TargetSpec,
    *,
    seed: int,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    group: str | None = None,
    time_column: str | None = None,
) -> NDArray[np.int8]:
    """Assign every row to a split.

    Args:
        table: Rows whose target is known.
        target: What is predicted.
        seed: Another seed gives another split; a time-ordered split has no use for it.
        validation_share: Share of validation rows, above 0.
        test_share: Share of test rows, above 0; both together below 1.
        group: Column whose equal values stay in one split; a row without a value is its own group.
        time_column: Column that orders the rows: the earliest train, the latest test, ties stay together.

    Returns:
        int8 ``Split`` values of shape ``(num_rows,)``.

    Raises:
        DataError: The shares are impossible, a column is absent or unfit, a split would be empty, or a class of
            validation or test would be absent from training.
    """
    shares = (validation_share, test_share)
    if not (min(shares) > 0 and sum(shares) < 1):
        raise DataError(f"Expected two shares above 0 that sum to less than 1, received {shares}.")
    if group is not None and time_column is not None:
        raise DataError("Expected a group column or a time column, received both; leave one out.")
    labels = encode_target(table, target)
    strata = labels.astype(np.int64) if target.task.is_classification else _deciles(labels.astype(np.float64))
    content = [name for name in table.column_names if name != target.name]
    if time_column is not None:
        ranks = _time_ranks(table, time_column)
        splits = _cut_in_order(ranks, shares=shares)
    elif group is not None:
        ranks = _group_ranks(table, group, content=content, seed=seed)
        splits = _cut(ranks, np.zeros(table.num_rows, np.int64), shares=shares)
        if target.task.is_classification:
            splits = _bring_classes_to_training(splits, ranks, strata)
    else:
        ranks = hash_rows(table, columns=content, seed=seed)
        splits = _cut(ranks, strata, shares=shares)
    if target.task.is_classification:
        _check_classes(splits, strata, target)
    _check_not_empty(splits, ranks, group=group, time_column=time_column)
    return splits


def _cut(ranks: NDArray[np.generic], strata: NDArray[np.int64], *, shares: tuple[float, float]) -> NDArray[np.int8]:
    """Cut each stratum along its ranks; equal ranks form a block that is never cut."""
    order = np.lexsort((ranks, strata))
    sorted_strata, sorted_ranks = strata[order], ranks[order]
    new_stratum = np.r_[True, sorted_strata[1:] != sorted_strata[:-1]]
    new_block = new_stratum | np.r_[True, sorted_ranks[1:] != sorted_ranks[:-1]]
    sizes = np.bincount(np.cumsum(new_block) - 1)
    block_strata = (np.cumsum(new_stratum) - 1)[new_block]
    stratum_sizes = np.bincount(block_strata, weights=sizes)
    starts = np.cumsum(stratum_sizes) - stratum_sizes
    # A block goes where its middle falls.
    positions = (np.cumsum(sizes) - sizes / 2 - starts[block_strata]) / stratum_sizes[block_strata]
    block_splits = _at(positions, shares)
    _fill_small_strata(block_splits, block_strata, sizes)
    splits = np.empty(len(ranks), np.int8)
    splits[order] = np.repeat(block_splits, sizes)
    return splits


def _at(positions: NDArray[np.float64], shares: tuple[float, float]) -> NDArray[np.int8]:
    """Return the split at each position in [0, 1] of a stratum."""
    return np.searchsorted([1 - sum(shares), 1 - shares[1]], positions, side="right").astype(np.int8)


def _fill_small_strata(
    block_splits: NDArray[np.int8], block_strata: NDArray[np.int64], sizes: NDArray[np.int64]
) -> None:
    """Give test and validation a block of every stratum where training can spare one; changes ``block_splits``."""
    num_strata = int(block_strata[-1]) + 1
    present = np.bincount(block_strata * 3 + block_splits, minlength=num_strata * 3).reshape(num_strata, 3) > 0
    for stratum in np.flatnonzero(~present.all(axis=1)):
        blocks = np.flatnonzero(block_strata == stratum)
        for split in (Split.TEST, Split.VALIDATION):
            training = blocks[block_splits[blocks] == Split.TRAIN]
            if len(training) > 1 and not present[stratum, split]:
                # The smallest block, the last of several, leaves most rows to training.
                block_splits[training[::-1][np.argmin(sizes[training[::-1]])]] = split
        if not (block_splits[blocks] == Split.TRAIN).any():
            block_splits[blocks[0]] = Split.TRAIN


def _cut_in_order(ranks: NDArray[np.generic], *, shares: tuple[float, float]) -> NDArray[np.int8]:
    """Cut once along the ranks: the lowest train, the highest test; equal ranks stay together."""
    _, block, sizes = np.unique(ranks, return_inverse=True, return_counts=True)
    block_splits = _at((np.cumsum(sizes) - sizes / 2) / len(ranks), shares)
    if len(sizes) >= len(Split):
        block_splits[-1] = Split.TEST
        block_splits[0] = Split.TRAIN
        if not (block_splits == Split.VALIDATION).any():
            block_splits[max(1, int(np.argmax(block_splits == Split.TEST)) - 1)] = Split.VALIDATION
    return block_splits[block]


def _bring_classes_to_training(
    splits: NDArray[np.int8], ranks: NDArray[np.generic], classes: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Move the group of lowest hash to training for each class that training lacks."""
    splits = splits.copy()
    for label in np.setdiff1d(classes, classes[splits == Split.TRAIN]):
        if not (splits[classes == label] == Split.TRAIN).any():
            splits[ranks == ranks[classes == label].min()] = Split.TRAIN
    return splits


def _deciles(values: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.quantile(values, np.arange(1, _NUM_DECILES) / _NUM_DECILES)
    # Few rows make few strata: each needs several blocks to be cut at all.
    num_strata = min(_NUM_DECILES, max(1, len(values) // 20))
    return np.searchsorted(edges, values, side="right") * num_strata // _NUM_DECILES


def _group_ranks(table: pa.Table, group: str, *, content: list[str], seed: int) -> NDArray[np.uint64]:
    array = plain_array(table, require_column(table, group, role="group column"))
    seeds = mix(np.array([seed % 2**64], np.uint64))
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    return np.where(missing, hash_rows(table, columns=content, seed=seed), mix(hash_column(array) ^ seeds))


def _time_ranks(table: pa.Table, time_column: str) -> NDArray[np.generic]:
    array = plain_array(table, require_column(table, time_column, role="time column"))
    times = array
    if array.type == pa.string():
        datetime_format, _, _ = recognise_format(array)
        times = timestamps_of(array, datetime_format=datetime_format)
    elif array.type not in (TIMESTAMP, pa.int64(), pa.float64()):
        raise DataError(f"Expected dates or numbers in the time column {time_column!r}, received {array.type}.")
    if times.null_count:
        row = int(np.flatnonzero(times.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"Expected a date or number in every row of the time column {time_column!r}, received "
            f"{array[row].as_py()!r} in row {row + 1} ({times.null_count:,} such rows); mend or drop them."
        )
    if times.type == TIMESTAMP:
        return np.asarray(times.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return numbers_of(times)


def _check_classes(splits: NDArray[np.int8], classes: NDArray[np.int64], target: TargetSpec) -> None:
    untrained = np.setdiff1d(classes, classes[splits == Split.TRAIN])
    if untrained.size:
        raise DataError(
            f"Every class must occur among the training rows, but {target.classes[int(untrained[0])]!r} of "
            f"{target.name!r} occurs only later than the earliest rows; leave the time column out or drop the class."
        )


def _check_not_empty(
    splits: NDArray[np.int8], ranks: NDArray[np.generic], *, group: str | None, time_column: str | None
) -> None:
    for split in Split:
        if not (splits == split).any():
            what = "distinct rows" if group is None else f"groups in {group!r}"
            what = what if time_column is None else f"distinct times in {time_column!r}"
            raise DataError(
                f"Expected rows for training, validation and test, but {np.unique(ranks).size:,} {what} leave "
                f"{split.name.lower()} empty; give more data, or other shares or another seed."
            )
