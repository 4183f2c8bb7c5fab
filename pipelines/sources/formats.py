"""The file formats by the ending of a file's name."""

from __future__ import annotations

from pipelines.sources.arrow_file import ArrowFormat
from pipelines.sources.csv_format import CsvFormat
from pipelines.sources.excel_file import ExcelFormat
from pipelines.sources.file_format import FileFormat
from pipelines.sources.json_lines import JsonLinesFormat
from pipelines.sources.numpy_file import NumpyFormat
from pipelines.sources.parquet_file import ParquetFormat
from pipelines.sources.tfrecord_file import TfRecordFormat

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
