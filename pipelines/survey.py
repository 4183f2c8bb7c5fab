"""One look at rows on disk: what must hold of every value, facts of the training rows, and a uniform sample of them.

For tables that are not held in memory. What needs no more than counts is exact; what needs the values themselves
(quantiles, scales, vocabularies, leaks) is learned from the sample.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import (
    PLAIN_TYPES,
    TextForm,
    has_leading_zeros,
    is_dictionary_of_text,
    numbers_of,
    parse_numbers,
    stored_array,
)
from pipelines.row_hash import hash_column
from pipelines.sketches import DistinctCounter, FrequentValues, Moments, are_whole
from pipelines.splits import Split
from pipelines.stored_rows import StoredRows

SAMPLE_ROWS = 300_000
"""Training rows that a sample holds; any quantile of them is within 0.25 % of that of all, with 95 % confidence
(Dvoretzky, Kiefer and Wolfowitz, with the constant of Massart, 1990). The validation part holds a third as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """What is known of a column beyond the sample.

    Attributes:
        num_rows: Training rows.
        num_missing: Those without a value.
        num_distinct: Distinct values of the training rows.
        missing_anywhere: Rows without a value, in all splits.
        is_whole: Whether all values in all splits are whole numbers; False for a column without numbers.
        smallest: The smallest finite number in all splits; 0 without numbers.
        largest: The largest.
        only_numbers: Whether all text in all splits is a number and none has leading zeros.
        moments: Range, mean and deviation over the training rows; None without numbers.
        frequent: The most frequent values of the training rows and their numbers; None for numbers.
    """

    num_rows: int
    num_missing: int
    num_distinct: int
    missing_anywhere: int
    is_whole: bool
    smallest: float
    largest: float
    only_numbers: bool
    moments: Moments | None
    frequent: tuple[pa.Array, NDArray[np.int64]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Values of a column that do not fit the others.

    Attributes:
        num_wrong: How many.
        num_present: Values of the column.
        first_row: Where the first of them stands, from 0.
        first: That value.
    """

    num_wrong: int
    num_present: int
    first_row: int
    first: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one look at the rows showed.

    Attributes:
        sample: Sampled training and validation rows in the order of the source, all columns.
        sample_splits: ``Split`` values of shape ``(num_sampled,)``.
        sampled: Mask over all rows.
        is_complete: Whether every training and validation row is in the sample.
        facts: Column name to facts.
        num_rows: Rows of all splits.
        infinite: Columns with infinite numbers.
        no_numbers: Columns of text, some of which is no number.
    """

    sample: pa.Table
    sample_splits: NDArray[np.int8]
    sampled: NDArray[np.bool_]
    is_complete: bool
    facts: Mapping[str, ColumnFacts]
    num_rows: int
    infinite: Mapping[str, Misfit]
    no_numbers: Mapping[str, Misfit]


def draw_sample(splits: NDArray[np.int8], *, seed: int, num_rows: int = SAMPLE_ROWS) -> NDArray[np.bool_]:
    """Return a mask of sampled rows: every set of training rows of the size is as likely, likewise of validation rows.

    Args:
        splits: ``Split`` values of shape ``(num_rows,)``; -1 for a row that is left out.
        seed: Chooses the rows.
        num_rows: Training rows of the sample; a third as many validation rows come with them.
    """
    sampled = np.zeros(len(splits), bool)
    generator = np.random.default_rng(seed)
    for split, most in ((Split.TRAIN, num_rows), (Split.VALIDATION, max(1, num_rows // 3))):
        rows = np.flatnonzero(splits == split)
        if len(rows) > most:
            rows = generator.choice(rows, size=most, replace=False, shuffle=False)
        sampled[rows] = True
    return sampled


def survey_rows(
    stored: StoredRows, splits: NDArray[np.int8], *, sampled: NDArray[np.bool_], unjudged: Collection[str] = ()
) -> Survey:
    """Look at every row once.

    Args:
        stored: The rows.
        splits: ``Split`` values of shape ``(num_rows,)``; -1 for a row that is left out.
        sampled: What ``draw_sample`` returned.
        unjudged: Columns whose values may be what they like.
    """
    looks = {name: _Look() for name in stored.schema.names}
    parts, part_splits = [], []
    for place, chunk in stored.chunks(text=TextForm.DICTIONARY):
        chunk_splits = splits[place]
        rows = _Rows.of(chunk_splits, first_row=place.start)
        for name, look in looks.items():
            look.at(stored_array(chunk, name), rows)
        wanted = sampled[place]
        if wanted.any():
            parts.append(chunk.filter(pa.array(wanted)).cast(stored.schema).combine_chunks())
            part_splits.append(chunk_splits[wanted])
    known = np.isin(splits, (Split.TRAIN, Split.VALIDATION))
    return Survey(
        sample=pa.concat_tables(parts).combine_chunks(),
        sample_splits=np.concatenate(part_splits),
        sampled=sampled,
        is_complete=bool((sampled == known).all()),
        facts={name: look.facts(int((splits == Split.TRAIN).sum())) for name, look in looks.items()},
        num_rows=int((splits >= 0).sum()),
        infinite={name: look.infinite for name, look in looks.items() if look.infinite and name not in unjudged},
        no_numbers={name: look.no_number for name, look in looks.items() if look.no_number and name not in unjudged},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Some consecutive rows.

    Attributes:
        first: Number of the first.
        used: Those of a split, counted from the first; None for all.
        train: Those of the training split.
    """

    first: int
    used: NDArray[np.intp] | None
    train: NDArray[np.intp]

    @classmethod
    def of(cls, splits: NDArray[np.int8], *, first_row: int) -> _Rows:
        """Tell rows apart by their splits."""
        used = None if (splits >= 0).all() else np.flatnonzero(splits >= 0)
        return cls(first=first_row, used=used, train=np.flatnonzero(splits == Split.TRAIN))


@final
class _Look:
    """What has been seen of one column."""

    def __init__(self) -> None:
        self.infinite: Misfit | None = None
        self.no_number: Misfit | None = None
        self._distinct, self._moments, self._frequent = DistinctCounter(), Moments(), FrequentValues()
        self._present = self._missing_anywhere = self._num_missing = 0
        self._is_whole, self._has_numbers, self._has_text, self._only_numbers = True, False, False, True
        self._smallest, self._largest = math.inf, -math.inf

    def at(self, array: pa.Array, rows: _Rows) -> None:
        """Look at some rows; those without a split only have to fit the others."""
        self._present += len(array) - array.null_count
        missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), bool) if array.null_count else None
        if missing is not None:
            self._missing_anywhere += int(missing.sum() if rows.used is None else missing[rows.used].sum())
            self._num_missing += int(missing[rows.train].sum())
        if array.type == pa.string():
            array = array.dictionary_encode()
        if is_dictionary_of_text(array.type):
            self._at_text(array, rows)
        elif array.type in (pa.int64(), pa.float64()):
            self._at_numbers(array, missing, rows)
        elif array.type in PLAIN_TYPES and array.type != pa.null():
            train = array.take(pa.array(rows.train)).drop_null()
            self._distinct.add(hash_column(train.unique()))
            if array.type == pa.bool_():
                self._frequent.add(train)

    def facts(self, num_rows: int) -> ColumnFacts:
        """Return what is known after all rows."""
        no_numbers = self._has_text or not self._has_numbers
        return ColumnFacts(
            num_rows=num_rows,
            num_missing=self._num_missing,
            num_distinct=self._distinct.count,
            missing_anywhere=self._missing_anywhere,
            is_whole=self._has_numbers and self._is_whole,
            smallest=self._smallest if self._has_numbers else 0.0,
            largest=self._largest if self._has_numbers else 0.0,
            only_numbers=self._has_text and self._only_numbers,
            moments=None if no_numbers else self._moments,
            frequent=self._frequent.counts() if no_numbers else None,
        )

    def _at_numbers(self, array: pa.Array, missing: NDArray[np.bool_] | None, rows: _Rows) -> None:
        values = numbers_of(array)
        used = values if rows.used is None else values[rows.used]
        train = values[rows.train]
        if missing is not None:
            used, train = used[~np.isnan(used)], train[~np.isnan(train)]
        self._distinct.add(hash_column(pa.array(train)))
        if not np.isfinite(values).all():
            self._find_infinite(array, values, first_row=rows.first)
            used, train = used[np.isfinite(used)], train[np.isfinite(train)]
        if used.size:
            self._has_numbers = True
            self._smallest = min(self._smallest, float(used.min()))
            self._largest = max(self._largest, float(used.max()))
        if array.type == pa.float64() and self._is_whole:
            self._is_whole = are_whole(used)
        self._moments.add(train)

    def _at_text(self, array: pa.DictionaryArray, rows: _Rows) -> None:
        self._has_text = True
        words = array.dictionary
        numbers = parse_numbers(words)
        self._find_misfits(array, numbers, first_row=rows.first)
        places = np.asarray(array.indices.fill_null(len(words)) if array.null_count else array.indices)
        counts = np.bincount(places[rows.train], minlength=len(words) + 1)[: len(words)]
        known = np.flatnonzero(counts)
        known_words = words.take(pa.array(known))
        self._distinct.add(hash_column(known_words))
        self._frequent.add_counts(known_words, pa.array(counts[known]))
        if self._only_numbers:
            held = words
            if rows.used is not None:
                is_used = np.bincount(places[rows.used], minlength=len(words) + 1)[: len(words)] > 0
                held = words.filter(pa.array(is_used))
                numbers = parse_numbers(held)
            self._only_numbers = numbers.null_count == 0 and not has_leading_zeros(held)

    def _find_misfits(self, array: pa.DictionaryArray, numbers: pa.Array, *, first_row: int) -> None:
        """Count the text that is no number, and the text that is an infinite one."""
        # A dictionary may hold words that none of these rows has.
        wrong = np.zeros(0, bool)
        if numbers.null_count:
            wrong = np.asarray(pc.fill_null(pc.take(numbers.is_null(), array.indices), False))
        if wrong.any() or self.no_number is not None:
            self.no_number = self._counted(self.no_number, array, wrong, first_row)
        infinite = np.isinf(numbers_of(numbers))
        if infinite.any():
            places = np.asarray(pc.fill_null(pc.take(pa.array(infinite), array.indices), False))
            if places.any():
                self.infinite = self._counted(self.infinite, array, places, first_row)

    def _find_infinite(self, array: pa.Array, values: NDArray[np.float64], *, first_row: int) -> None:
        infinite = np.isinf(values)
        if infinite.any():
            self.infinite = self._counted(self.infinite, array, infinite, first_row)

    def _counted(
        self, before: Misfit | None, array: pa.Array, wrong: NDArray[np.bool_], first_row: int
    ) -> Misfit:
        places = np.flatnonzero(wrong)
        if before is not None:
            return replace(before, num_wrong=before.num_wrong + len(places), num_present=self._present)
        return Misfit(
            num_wrong=len(places),
            num_present=self._present,
            first_row=first_row + int(places[0]),
            first=array[int(places[0])].as_py(),
        )
