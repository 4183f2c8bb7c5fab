"""Training, validation and test rows, and folds, by a hash of the row and the seed, before anything looks at them (R6).

Rows are ranked by their hash inside each stratum (class, or decile of a number) and the ranks are cut. Identical rows
have one hash and stay together, and a row keeps its side of the cut however the table is ordered.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.column_values import plain_array, require_column
from pipelines.errors import DataError
from pipelines.instants import instants
from pipelines.raw_columns import encode_target
from pipelines.row_hash import hash_column, hash_rows, mix
from pipelines.schema import TargetSpec, Task
from pipelines.time_splits import Embargo, embargoed

ALWAYS_TRAINS = -1
"""The fold of rows that no fold holds out."""

_NUM_DECILES = 10
_LARGE_STRATUM = 1_000
_CLASSES = (Task.BINARY, Task.MULTICLASS)


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
    embargo: Embargo | None = None,
    identities: NDArray[np.uint64] | None = None,
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
        embargo: How far the splits of a time column are kept apart; None for not at all.
        identities: What ``hash_rows`` says of all columns but the target with this seed, where the table has not all
            of them; None asks it.

    Returns:
        int8 ``Split`` values of shape ``(num_rows,)``, or ``LEFT_OUT`` for rows of the embargo.

    Raises:
        DataError: The shares are impossible, a column is absent or unfit, a split would be empty, or a class of
            validation or test would be absent from training.
    """
    shares = (validation_share, test_share)
    if not (min(shares) > 0 and sum(shares) < 1):
        raise DataError(f"Expected two shares above 0 that sum to less than 1, received {shares}.")
    if group is not None and time_column is not None:
        raise DataError("Expected a group column or a time column, received both; leave one out.")
    if embargo is not None and not embargo.is_none and time_column is None:
        raise DataError("Expected a time column with the embargo (--time-column): rows without a time lie nowhere.")
    labels = encode_target(table, target)
    strata = _strata(labels, target)
    if identities is None:
        content = [] if time_column is not None else [name for name in table.column_names if name not in target.names]
        identities = hash_rows(table, columns=content, seed=seed)
    ranks: NDArray[Any]
    if time_column is not None:
        times = instants(table, time_column)
        splits = embargoed(cut_in_order(times, shares=shares), times, embargo or Embargo(), name=time_column)
        ranks = times
    elif group is not None:
        ranks = _group_ranks(table, group, identities=identities, seed=seed)
        splits = _cut(ranks, np.zeros(table.num_rows, np.int64), shares=shares)
        if target.task in _CLASSES:
            splits = _bring_classes_to_training(splits, ranks, strata)
    else:
        ranks = identities
        splits = _cut(ranks, strata, shares=shares)
    if target.task in _CLASSES:
        _check_classes(splits[splits >= 0], strata[splits >= 0], target)
    _check_not_empty(splits, ranks, group=group, time_column=time_column)
    return splits


def assign_folds(
    table: pa.Table,
    target: TargetSpec,
    *,
    seed: int,
    num_folds: int,
    group: str | None = None,
    time_column: str | None = None,
) -> NDArray[np.int8]:
    """Assign every row the fold that holds it out, in the manner of `assign_splits`.

    Folds are stratified, or made of whole groups. Where a time column orders the rows they are windows of time: the
    earliest rows are never held out, and a fold is trained on all rows that are older than its own.

    Args:
        table: Training and validation rows whose target is known.
        target: What is predicted.
        seed: Another seed gives other folds; windows of time have no use for it.
        num_folds: Number of folds, from 2 to 127.
        group: Column whose equal values stay in one fold.
        time_column: Column that orders the rows.

    Returns:
        int8 of shape ``(num_rows,)``: the fold from 0, or ``ALWAYS_TRAINS`` (as well for the only rows of a class).

    Raises:
        DataError: There are too few distinct rows, groups or times, or a class occurs first in a later window.
    """
    labels = encode_target(table, target)
    classes = labels.astype(np.int64) if target.task in _CLASSES else None
    ranks: NDArray[Any]
    if time_column is not None:
        ranks = instants(table, time_column)
        # One window more than folds: the first only trains.
        folds = _deal(ranks, np.zeros(table.num_rows, np.int64), num_folds=num_folds + 1) - 1
    elif group is not None:
        content = [name for name in table.column_names if name not in target.names]
        ranks = _group_ranks(table, group, identities=hash_rows(table, columns=content, seed=seed), seed=seed)
        folds = _deal(ranks, np.zeros(table.num_rows, np.int64), num_folds=num_folds)
    else:
        ranks = hash_rows(table, columns=[name for name in table.column_names if name not in target.names], seed=seed)
        strata = _strata(labels, target)
        folds = _deal(ranks, strata, num_folds=num_folds, turn=True)
    if classes is not None and time_column is not None:
        _check_windows(folds, classes, target)
    elif classes is not None:
        for label in np.unique(classes):
            rows = classes == label
            if np.unique(folds[rows]).size == 1:
                # With all that must stay together with them.
                folds[np.isin(ranks, ranks[rows])] = ALWAYS_TRAINS
    # Windows of time need one before the first as well.
    if not np.isin(np.arange(-1 if time_column is not None else 0, num_folds), folds).all():
        what = "distinct rows" if group is None else f"groups in {group!r}"
        what = what if time_column is None else f"distinct times in {time_column!r}"
        raise DataError(
            f"Expected enough rows to hold some out in each of {num_folds} folds, but {np.unique(ranks).size:,} {what} "
            f"leave one empty; ask for fewer folds, or for 1 to select on one validation part."
        )
    return folds


def fold_rows(
    folds: NDArray[np.int8], fold: int, *, in_time: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows that a fold trains on and those that it holds out.

    Args:
        folds: What `assign_folds` returned.
        fold: The fold, from 0.
        in_time: Whether folds are windows of time, each trained on what came before it.
    """
    trains = folds < fold if in_time else folds != fold
    return np.flatnonzero(trains), np.flatnonzero(folds == fold)


def _strata(labels: NDArray[np.generic], target: TargetSpec) -> NDArray[np.int64]:
    """Return what rows should be spread over the parts by: class, tenth of a number, or the rarest label that holds."""
    if target.task in _CLASSES:
        return labels.astype(np.int64)
    values = labels.astype(np.float64)
    if target.task is Task.MULTILABEL:
        rarity = np.argsort(np.argsort(values.sum(axis=0), kind="stable"))
        places = np.where(values > 0, rarity, len(rarity)).min(axis=1)
        return np.unique(places, return_inverse=True)[1].astype(np.int64)
    if values.ndim == 2:
        deviation = values.std(axis=0)
        values = ((values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)).mean(axis=1)
    return _deciles(values)


def _deal(
    ranks: NDArray[np.generic], strata: NDArray[np.int64], *, num_folds: int, turn: bool = False
) -> NDArray[np.int8]:
    """Cut each stratum along its ranks into equal parts; equal ranks form a block that is never cut.

    With `turn`, each stratum begins with another fold: else those of a few rows would all be in the middle ones.
    """
    order, sizes, block_strata, positions = _blocks(ranks, strata)
    parts = np.floor(positions * num_folds).astype(np.int64)
    if turn:
        parts = (parts + block_strata) % num_folds
    folds = np.empty(len(ranks), np.int8)
    folds[order] = np.repeat(parts, sizes)
    return folds


def _blocks(
    ranks: NDArray[np.generic], strata: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Sort rows by stratum and rank; return the order, and of each block of equal ones its size, stratum and middle.

    The middle is a position in [0, 1] of the stratum.
    """
    order = np.lexsort((ranks, strata))
    sorted_strata, sorted_ranks = strata[order], ranks[order]
    new_stratum = np.r_[True, sorted_strata[1:] != sorted_strata[:-1]]
    new_block = new_stratum | np.r_[True, sorted_ranks[1:] != sorted_ranks[:-1]]
    sizes = np.bincount(np.cumsum(new_block) - 1)
    block_strata = (np.cumsum(new_stratum) - 1)[new_block]
    stratum_sizes = np.bincount(block_strata, weights=sizes)
    starts = np.cumsum(stratum_sizes) - stratum_sizes
    middles = (np.cumsum(sizes) - sizes / 2 - starts[block_strata]) / stratum_sizes[block_strata]
    return order, sizes, block_strata, middles


def _check_windows(folds: NDArray[np.int8], classes: NDArray[np.int64], target: TargetSpec) -> None:
    for fold in range(int(folds.max()) + 1):
        unseen = np.setdiff1d(classes[folds == fold], classes[folds < fold])
        if unseen.size:
            raise DataError(
                f"Every class of a fold must occur in the time before it, but {target.classes[int(unseen[0])]!r} of "
                f"{target.name!r} occurs first in window {fold + 2}; ask for fewer folds, or for 1 to select on one "
                f"validation part."
            )


def _cut(ranks: NDArray[np.generic], strata: NDArray[np.int64], *, shares: tuple[float, float]) -> NDArray[np.int8]:
    """Cut each stratum along its ranks; equal ranks form a block that is never cut."""
    splits = np.empty(len(ranks), np.int8)
    order = np.argsort(strata, kind="stable")
    ends = np.searchsorted(strata[order], np.unique(strata), side="right")
    small = []
    for rows in np.split(order, ends[:-1]):
        found = _cut_large(ranks[rows], shares=shares) if len(rows) >= _LARGE_STRATUM else None
        if found is None:
            small.append(rows)
        else:
            splits[rows] = found
    if small:
        rows = np.concatenate(small)
        splits[rows] = _cut_blocks(ranks[rows], strata[rows], shares=shares)
    return splits


def _cut_large(ranks: NDArray[np.generic], *, shares: tuple[float, float]) -> NDArray[np.int8] | None:
    """Cut one stratum as ``_cut_blocks`` does, with little more than sorted ranks; None where a split gets no row."""
    ordered = np.sort(ranks)
    splits = np.zeros(len(ranks), np.int8)
    for share in (1 - sum(shares), 1 - shares[1]):
        # The block in which the cut lies goes where its middle falls; those behind it lie behind the cut.
        place = min(int(share * len(ordered)), len(ordered) - 1)
        start, end = (int(np.searchsorted(ordered, ordered[place], side=side)) for side in ("left", "right"))
        if (start + (end - start) / 2) / len(ordered) < share:
            start = end
        if start < len(ordered):
            splits += ranks >= ordered[start]
    return splits if len(np.unique(splits)) == len(Split) else None


def _cut_blocks(
    ranks: NDArray[np.generic], strata: NDArray[np.int64], *, shares: tuple[float, float]
) -> NDArray[np.int8]:
    """Cut strata of any size; each gets a row of every split where it has enough blocks."""
    order, sizes, block_strata, positions = _blocks(ranks, strata)
    # A block goes where its middle falls.
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


def cut_in_order(ranks: NDArray[np.generic], *, shares: tuple[float, float]) -> NDArray[np.int8]:
    """Cut once along the ranks: the lowest train, the highest test; equal ranks stay together.

    Args:
        ranks: Of shape ``(num_rows,)``.
        shares: Of validation and test.
    """
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


def _group_ranks(
    table: pa.Table, group: str, *, identities: NDArray[np.uint64], seed: int
) -> NDArray[np.uint64]:
    array = plain_array(table, require_column(table, group, role="group column"))
    seeds = mix(np.array([seed % 2**64], np.uint64))
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    return np.where(missing, identities, mix(hash_column(array) ^ seeds))


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
            what = "different rows (the target aside)" if group is None else f"groups in {group!r}"
            what = what if time_column is None else f"different times in {time_column!r}"
            raise DataError(
                f"Expected rows for training, validation and test, but {split.name.lower()} stays empty: the data has "
                f"{np.unique(ranks).size:,} {what}; give more data, or other shares or another seed."
            )
