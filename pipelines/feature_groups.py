"""Versioned groups of features by key, and their point-in-time join: a row gets what was known when it happened.

A store is a folder; ``STORE/NAME/VERSION/`` holds ``data.parquet``, sorted by key and time, and ``group.json``. A
version never changes: a group that is registered again is another version.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.column_values import TIMESTAMP, plain_array, plain_table, require_column, text_of
from pipelines.content_hash import stream_hash
from pipelines.errors import DataError, suggest_name
from pipelines.free_memory import require_memory
from pipelines.instants import Instants, check_not_ahead, instants, time_text
from pipelines.key_columns import alike
from pipelines.schema import checked_fields

DEFAULT_STORE = "feature_store"
DATA_FILE, GROUP_FILE = "data.parquet", "group.json"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
TIME_COLUMN = "__tamiz_time__"
"""Column of the stored file that holds the times as instants."""
_FIRST_ROWS = 1_000
_PART_ROWS = 1 << 17
"""Rows that are brought into their order and written together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGroup:
    """One version of a group of features.

    Attributes:
        name: Its name.
        version: From 1.
        key: Column that rows look it up by.
        timestamp: Column that says when its values were known; "" where they always were.
        columns: The features.
        num_rows: Rows.
        source: What it was registered from.
        blake3: BLAKE3 hash of the stored file, in hexadecimal digits.
    """

    name: str
    version: int
    key: str
    timestamp: str
    columns: tuple[str, ...]
    num_rows: int
    source: str
    blake3: str

    @property
    def title(self) -> str:
        """The name with the version, as settings keep it."""
        return f"{self.name}@{self.version}"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FeatureGroup:
        """Rebuild what ``register`` wrote.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        return cls(**values | {"columns": tuple(values["columns"])})


def register(
    store: Path, table: pa.Table, *, name: str, key: str, timestamp: str = "", source: str = ""
) -> FeatureGroup:
    """Store a table as the next version of a group.

    Of rows that are memory-mapped only keys and times are held in memory, and a part of the rows at a time.

    Args:
        store: Folder of the groups, made if missing.
        table: The rows; text may be a dictionary.
        name: Name of the group.
        key: Column that rows look it up by.
        timestamp: Column that says when a row's values were known; "" where they always were.
        source: What the table was read from.

    Raises:
        DataError: The name cannot be one, a column is absent, a key is missing, a time cannot be read or lies ahead, or
            a key occurs several times (at one time), so that a join would multiply rows.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"Expected a letter and then letters, digits and '_' as the group's name, received {name!r}.")
    keys = plain_array(table, require_column(table, key, role="key column"))
    if keys.null_count:
        row = int(np.flatnonzero(np.asarray(keys.is_null()))[0])
        raise DataError(
            f"Expected a key in every row of {key!r}, but {keys.null_count:,} are missing, the first in row {row + 1}; "
            "mend or drop these rows."
        )
    columns = tuple(column for column in table.column_names if column not in (key, timestamp))
    if not columns:
        raise DataError(f"Expected features beside {key!r}{f' and {timestamp!r}' if timestamp else ''}, received none.")
    times: Instants = np.zeros(table.num_rows, np.int64)
    if timestamp:
        times = instants(table, timestamp, role="timestamp column")
        check_not_ahead(times, timestamp)
    codes = np.asarray(keys.dictionary_encode().indices)
    order = np.lexsort((times, codes))
    _check_once(keys, codes[order], times[order], order, key=key, timestamp=timestamp)
    stored = _rows_in_order(table.select([key, *columns]), times, order)
    versions = _versions(store / name)
    record: dict[str, Any] = {
        "name": name,
        "version": max(versions, default=0) + 1,
        "key": key,
        "timestamp": timestamp,
        "columns": list(columns),
        "num_rows": table.num_rows,
        "source": source,
    }
    return _write(store / name, stored, record)


def _check_once(
    keys: pa.Array, codes: NDArray[Any], times: Instants, order: NDArray[Any], *, key: str, timestamp: str
) -> None:
    same = np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] == times[:-1]))
    if not same.size:
        return
    place = int(same[0])
    value = keys[int(order[place])].as_py()
    rows = sorted(int(row) + 1 for row in order[place : place + 2])
    when = f" at one time of {timestamp!r}" if timestamp else ""
    hint = "" if timestamp else "; name the column that says when values were known (--timestamp)"
    at = f" at {time_text(times[place])}" if timestamp else ""
    raise DataError(
        f"Expected each key of {key!r} once{when}, but {same.size:,} rows are too many, the first {value!r}{at} in the "
        f"rows {rows[0]} and {rows[1]}: a join would multiply rows{hint}. Drop the duplicates, or aggregate them."
    )


def _rows_in_order(table: pa.Table, times: Instants, order: NDArray[Any]) -> Iterator[pa.Table]:
    """Yield the rows in another order, with their times, a part at a time; at least one part."""
    batches = table.to_batches()
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    for first in range(0, max(1, len(order)), _PART_ROWS):
        part = order[first : first + _PART_ROWS]
        # A batch is looked at once for all that is wanted of it.
        rising = np.sort(part)
        ends = np.searchsorted(rising, starts)
        found = [
            batch.take(pa.array(rising[low:high] - start))
            for batch, start, low, high in zip(batches, starts[:-1], ends[:-1], ends[1:], strict=True)
            if high > low
        ]
        rows = plain_table(pa.Table.from_batches(found, schema=table.schema))
        rows = rows.take(pa.array(np.searchsorted(rising, part)))
        yield rows.append_column(TIME_COLUMN, pa.array(times[part]))


def _write(folder: Path, parts: Iterator[pa.Table], record: dict[str, Any]) -> FeatureGroup:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        first = next(parts)
        with pq.ParquetWriter(temporary / DATA_FILE, first.schema) as writer:
            for part in itertools.chain([first], parts):
                writer.write_table(part.cast(first.schema))
        with (temporary / DATA_FILE).open("rb") as file:
            record["blake3"], _ = stream_hash(file)
        (temporary / GROUP_FILE).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.rename(folder / str(record["version"]))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return FeatureGroup.from_json(record)


def groups_of(store: Path) -> list[FeatureGroup]:
    """Return every version of every group, by name and version.

    Args:
        store: Folder of the groups.
    """
    names = sorted(place.name for place in store.iterdir() if NAME.fullmatch(place.name)) if store.is_dir() else []
    return [find_group(store, f"{name}@{version}") for name in names for version in _versions(store / name)]


def find_group(store: Path, title: str) -> FeatureGroup:
    """Return a group: ``NAME`` for its latest version, or ``NAME@VERSION``.

    Args:
        store: Folder of the groups.
        title: Which one.

    Raises:
        DataError: There is none, or its files are damaged.
    """
    name, _, version = title.partition("@")
    versions = _versions(store / name) if NAME.fullmatch(name) else []
    if not versions:
        known = sorted(place.name for place in store.iterdir() if place.is_dir()) if store.is_dir() else []
        raise DataError(
            f"There is no feature group {name!r} in the store {str(store)!r}.{suggest_name(name, known)} Register it "
            f"with `tamiz features register {name} DATA --key COLUMN`, or name another store (--store)."
        )
    wanted = version or str(versions[-1])
    if wanted not in map(str, versions):
        raise DataError(f"The feature group {name!r} has the versions {', '.join(map(str, versions))}, not {wanted!r}.")
    try:
        return FeatureGroup.from_json(json.loads((store / name / wanted / GROUP_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        place = f"{title!r} in {str(store)!r}"
        raise DataError(f"The feature group {place} is damaged: {error}; register it again.") from error


def read_group(store: Path, group: FeatureGroup) -> pa.Table:
    """Return the rows of a group, sorted by key and time, the times as ``TIME_COLUMN``.

    Args:
        store: Folder of the groups.
        group: Which one.

    Raises:
        DataError: The file is absent, or is not what was registered.
    """
    path = store / group.name / str(group.version) / DATA_FILE
    try:
        with path.open("rb") as file:
            if stream_hash(file)[0] != group.blake3:
                raise DataError(f"The feature group {group.title!r} is not what was registered: {path} has changed.")
            file.seek(0)
            parquet = pq.ParquetFile(file)
            first = next(parquet.iter_batches(batch_size=_FIRST_ROWS))
            require_memory(first.nbytes * group.num_rows // first.num_rows, f"the feature group {group.title!r}")
            return parquet.read()
    except OSError as error:
        raise DataError(f"The feature group {group.title!r} cannot be read: {error.strerror} ({path}).") from error


def latest_rows(table: pa.Table, group: FeatureGroup) -> pa.Table:
    """Return the latest values of every key, without the times: what a model that is served looks up.

    Args:
        table: What ``read_group`` returned.
        group: Which group it is.
    """
    codes = np.asarray(plain_array(table, group.key).dictionary_encode().indices)
    last = np.flatnonzero(np.r_[codes[1:] != codes[:-1], True]) if len(codes) else np.array([], np.int64)
    latest = table.take(pa.array(last)).select([group.key, *group.columns])
    # Every database has numbers and text.
    columns = {name: plain_array(latest, name) for name in latest.column_names}
    return pa.table({name: _storable(column) for name, column in columns.items()})


def _storable(column: pa.Array) -> pa.Array:
    return text_of(column) if column.type in (pa.bool_(), TIMESTAMP) else column


@dataclass(frozen=True, slots=True)
class JoinedFeatures:
    """Rows with the features that they looked up.

    Attributes:
        table: The rows in their order, with more columns.
        num_missing: Rows without a match.
    """

    table: pa.Table
    num_missing: int


def join_features(
    rows: pa.Table,
    features: pa.Table,
    group: FeatureGroup,
    *,
    time_column: str = "",
    time_format: str | None = None,
) -> JoinedFeatures:
    """Return rows with the features of their key: the latest that were known when each row happened.

    Args:
        rows: The rows; their key column has the name of the group's.
        features: What ``read_group`` returned.
        group: Which group it is.
        time_column: When each row happened; "" takes the latest features, where the group has times.
        time_format: How its dates are written; None recognises it.

    Raises:
        DataError: A column is absent, times are dates on one side and numbers on the other, or a name is taken.
    """
    keys = plain_array(rows, require_column(rows, group.key, role="key column"))
    times = instants(rows, time_column, datetime_format=time_format) if group.timestamp and time_column else None
    if times is not None and times.dtype != features.schema.field(TIME_COLUMN).type.to_pandas_dtype():
        raise DataError(
            f"Expected times of one kind, but {time_column!r} of the rows and {group.timestamp!r} of the feature "
            f"group {group.name!r} are dates on one side and numbers on the other."
        )
    places = _places(keys, features, group.key, times=times)
    found = pa.array(places, mask=places < 0)
    table = rows
    for name in group.columns:
        new = f"{group.name}_{name}" if name in rows.column_names else name
        if new in table.column_names:
            raise DataError(
                f"Expected different column names, but the feature group {group.name!r} has a column {name!r} and the "
                f"rows have {name!r} and {new!r} already; rename it."
            )
        table = table.append_column(new, plain_array(features, name).take(found))
    return JoinedFeatures(table, int((places < 0).sum()))


def _places(keys: pa.Array, features: pa.Table, key: str, *, times: Instants | None) -> NDArray[np.int64]:
    """Return for each row the place of its features as of its time, the latest ones for None; or -1."""
    left, right = alike(keys, plain_array(features, key))
    encoded = right.dictionary_encode()
    codes = np.asarray(encoded.indices).astype(np.int64)
    among = pc.index_in(left, value_set=encoded.dictionary)
    # Nothing is not a key.
    among = pc.if_else(pc.is_null(left), pa.scalar(None, pa.int32()), among)
    wanted = np.asarray(among.fill_null(-1)).astype(np.int64)
    known = np.asarray(features.column(TIME_COLUMN).combine_chunks())
    if times is None:
        times = np.full(len(keys), known.max() if len(known) else 0, known.dtype)
    # Instants by their rank, so that a key and an instant are one number in the order of the features.
    ranks = np.unique(np.concatenate([known, times]))
    of_features = codes * len(ranks) + np.searchsorted(ranks, known)
    of_rows = wanted * len(ranks) + np.searchsorted(ranks, times)
    order = np.argsort(of_features, kind="stable")
    # The last one that is not later: at the very instant it is known.
    last = np.searchsorted(of_features[order], of_rows, side="right") - 1
    places = order[np.maximum(last, 0)] if len(order) else np.zeros(len(keys), np.int64)
    fits = (last >= 0) & (wanted >= 0) & (codes[places] == wanted) if len(order) else np.zeros(len(keys), bool)
    return np.where(fits, places, -1)


def _versions(folder: Path) -> list[int]:
    found = [place.name for place in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in found if name.isdigit())
