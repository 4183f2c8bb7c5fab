"""The file formats by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from pipelines.sources.arrow_file import ArrowFormat
from pipelines.sources.csv_format import CsvFormat
from pipelines.sources.excel_file import ExcelFormat
from pipelines.sources.file_format import FileFormat
from pipelines.sources.json_lines import JsonLinesFormat, line_tables
from pipelines.sources.numpy_file import NumpyFormat
from pipelines.sources.parquet_file import ParquetFormat
from pipelines.sources.tfrecord_file import TfRecordFormat, example_tables

ARCHIVES = (".gz", ".zst")
"""Endings that are looked past; what a file is packed with is seen from its first bytes."""

_CSV, _PARQUET, _ARROW, _JSON = CsvFormat(), ParquetFormat(), ArrowFormat(), JsonLinesFormat()
_EXCEL, _NUMPY, _TFRECORD = ExcelFormat(), NumpyFormat(), TfRecordFormat()

FORMATS: dict[str, FileFormat] = {
    ".csv": _CSV,
    ".tsv": _CSV,
    ".txt": _CSV,
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
    ".arrow": _ARROW,
    ".arrows": _ARROW,
    ".feather": _ARROW,
    ".ipc": _ARROW,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".json": _JSON,
    ".xlsx": _EXCEL,
    ".xlsm": _EXCEL,
    ".npy": _NUMPY,
    ".npz": _NUMPY,
    ".tfrecord": _TFRECORD,
    ".tfrecords": _TFRECORD,
}


@dataclass(frozen=True, slots=True)
class SparseFormat:
    """A format whose rows may leave columns out, so that only all of them tell which columns there are.

    Attributes:
        tables: Takes a file and its name in messages; yields its parts with the columns that they have.
        by_name: Whether the columns of a file are in the order of their names, else as they come.
    """

    tables: Callable[[IO[bytes], str], Iterator[pa.Table]]
    by_name: bool


_LINES, _EXAMPLES = SparseFormat(line_tables, by_name=False), SparseFormat(example_tables, by_name=True)

SPARSE: dict[str, SparseFormat] = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".json": _LINES,
    ".tfrecord": _EXAMPLES,
    ".tfrecords": _EXAMPLES,
}
