"""NumPy files: .npy with one array, .npz with an array a column."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.sources.file_format import Content, FileFormat, first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import Parsed, wanted_columns
from pipelines.sources.stored_file import StoredFile
from pipelines.sources.zip_limits import check_zip


@final
class NumpyFormat(FileFormat):
    """Arrays: one dimension is a column, two are several, the fields of a structured array are columns by name."""

    def parse(self, contents: Iterable[Content], options: ReadOptions) -> Parsed:
        """Read files as one table."""
        parts = [(content.name, _read(content, options.max_bytes)) for content in contents]
        return Parsed(table=unite(parts), part_rows=tuple(table.num_rows for _, table in parts))

    def stream(
        self, file: StoredFile, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of one file in one table; NumPy has no parts."""
        del chunk_rows
        table = _read(Content(file.name, file.read()), options.max_bytes)
        yield table.select(wanted_columns(table.column_names, columns))


def _read(content: Content, max_bytes: int) -> pa.Table:
    file = io.BytesIO(content.data)
    try:
        if zipfile.is_zipfile(file):
            check_zip(content, max_bytes)
        file.seek(0)  # is_zipfile looks at the end
        # Pickled objects could run code.
        loaded = np.load(file, allow_pickle=False)
        arrays: Mapping[str, Any] = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"column": loaded}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Expected a NumPy file of numbers and text, but {content.name!r} cannot be read as one "
            f"({first_line(error)}); it has {len(content.data):,} bytes: fetch it again, or save arrays of numbers and "
            "text, without objects."
        ) from error
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        for column, values in _columns(name, array, content.name).items():
            if column in columns:
                raise DataError(f"Expected different column names, but {column!r} occurs twice in {content.name!r}.")
            columns[column] = values
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"Expected arrays of one length in {content.name!r}, received "
            f"{', '.join(f'{name} of {length:,}' for name, length in list(lengths.items())[:8])}."
        )
    return pa.table(columns)


def _columns(name: str, array: NDArray[Any], file: str) -> dict[str, Any]:
    if array.dtype.names:
        fields = [_columns(field, array[field], file) for field in array.dtype.names]
        return {column: values for part in fields for column, values in part.items()}
    try:
        if array.ndim == 1:
            return {name: _arrow(array)}
        if array.ndim == 2:
            return {f"{name}_{number + 1}": _arrow(array[:, number]) for number in range(array.shape[1])}
    except pa.ArrowException as error:
        raise DataError(
            f"Expected numbers, text or times in {file!r}, but {name!r} is {array.dtype}; convert or drop the array."
        ) from error
    raise DataError(
        f"Expected arrays of one dimension (a column) or two (rows and columns), but {name!r} in {file!r} has the "
        f"shape {array.shape}."
    )


def _arrow(array: NDArray[Any]) -> pa.Array:
    if array.dtype.kind in "SU":
        return pa.array(array.astype(str).tolist(), pa.string())
    # A byte order other than the machine's, and strides, are NumPy's own.
    return pa.array(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
