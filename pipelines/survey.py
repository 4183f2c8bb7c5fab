"""One look at rows on disk: what must hold of every value, facts of the training rows, and a uniform sample of them.

For tables that are not held in memory. What needs no more than counts is exact; what needs the values themselves
(quantiles, scales, vocabularies, leaks) is learned from the sample.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.column_values import PLAIN_TYPES, has_leading_zeros, numbers_of, parse_numbers, plain_array
from pipelines.row_hash import hash_column
from pipelines.sketches import DistinctCounter, FrequentValues, Moments
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
        infinite: Columns with infinite numbers.
        no_numbers: Columns of text, some of which is no number.
    """

    sample: pa.Table
    sample_splits: NDArray[np.int8]
    sampled: NDArray[np.bool_]
    is_complete: bool
    facts: Mapping[str, ColumnFacts]
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
    stored: StoredRows, splits: NDArray[np.int8], *, sampled: NDArray[np.bool_], ignored: Collection[str] = ()
) -> Survey:
    """Look at every row once.

    Args:
        stored: The rows.
        splits: ``Split`` values of shape ``(num_rows,)``; -1 for a row that is left out.
        sampled: What ``draw_sample`` returned.
        ignored: Columns of which only the sample is wanted.
    """
    looks = {name: _Look() for name in stored.schema.names if name not in ignored}
    parts, part_splits = [], []
    for place, chunk in stored.chunks():
        chunk_splits = splits[place]
        training = pa.array(chunk_splits == Split.TRAIN)
        for name, look in looks.items():
            look.at(plain_array(chunk, name), training=training, first_row=place.start)
        wanted = sampled[place]
        if wanted.any():
            parts.append(chunk.filter(pa.array(wanted)).combine_chunks())
            part_splits.append(chunk_splits[wanted])
    known = np.isin(splits, (Split.TRAIN, Split.VALIDATION))
    return Survey(
        sample=pa.concat_tables(parts).combine_chunks(),
        sample_splits=np.concatenate(part_splits),
        sampled=sampled,
        is_complete=bool((sampled == known).all()),
        facts={name: look.facts(int((splits == Split.TRAIN).sum())) for name, look in looks.items()},
        infinite={name: look.infinite for name, look in looks.items() if look.infinite is not None},
        no_numbers={name: look.no_number for name, look in looks.items() if look.no_number is not None},
    )


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

    def at(self, array: pa.Array, *, training: pa.Array, first_row: int) -> None:
        """Look at some rows."""
        self._missing_anywhere += array.null_count
        self._present += len(array) - array.null_count
        train = array.filter(training)
        self._num_missing += train.null_count
        if array.type not in PLAIN_TYPES or array.type == pa.null():
            return
        if array.type == pa.string():
            self._at_text(array, train, first_row=first_row)
            return
        self._distinct.add(np.unique(hash_column(train.drop_null())))
        if array.type in (pa.int64(), pa.float64()):
            self._at_numbers(array, train, first_row=first_row)
        elif array.type == pa.bool_():
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

    def _at_numbers(self, array: pa.Array, train: pa.Array, *, first_row: int) -> None:
        values = numbers_of(array)
        present = values[~np.isnan(values)]
        self._has_numbers = self._has_numbers or present.size > 0
        infinite = np.isinf(values)
        if infinite.any():
            row = int(np.flatnonzero(infinite)[0])
            self.infinite = self._counted(self.infinite, int(infinite.sum()), first_row + row, array[row].as_py())
            present = present[np.isfinite(present)]
        if present.size:
            self._smallest = min(self._smallest, float(present.min()))
            self._largest = max(self._largest, float(present.max()))
        if array.type == pa.float64() and self._is_whole:
            self._is_whole = bool(np.all((present == np.rint(present)) & (np.abs(present) <= 2.0**53)))
        known = numbers_of(train)
        self._moments.add(known[np.isfinite(known)])

    def _at_text(self, array: pa.Array, train: pa.Array, *, first_row: int) -> None:
        self._has_text = True
        words = train.dictionary_encode().dictionary
        self._distinct.add(hash_column(words))
        self._frequent.add(train)
        encoded = array.dictionary_encode()
        words = encoded.dictionary
        numbers = parse_numbers(words)
        self._only_numbers = self._only_numbers and numbers.null_count == 0 and not has_leading_zeros(words)
        if numbers.null_count:
            wrong = pc.fill_null(pc.take(numbers.is_null(), encoded.indices), False)
            places = np.flatnonzero(np.asarray(wrong))
            self.no_number = self._counted(
                self.no_number, len(places), first_row + int(places[0]), array[int(places[0])].as_py()
            )
        elif self.no_number is not None:
            self.no_number = self._counted(self.no_number, 0, 0, None)
        infinite = np.isinf(numbers_of(numbers))
        if infinite.any():
            row = int(np.flatnonzero(np.asarray(pc.is_in(array, words.filter(pa.array(infinite)))))[0])
            self.infinite = self._counted(self.infinite, int(infinite.sum()), first_row + row, array[row].as_py())

    def _counted(self, before: Misfit | None, num: int, row: int, value: object) -> Misfit:
        if before is None:
            return Misfit(num_wrong=num, num_present=self._present, first_row=row, first=value)
        return Misfit(
            num_wrong=before.num_wrong + num,
            num_present=self._present,
            first_row=before.first_row,
            first=before.first,
        )
