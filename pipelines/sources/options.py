"""How a source is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from pipelines.errors import DataError

DEFAULT_MISSING_VALUES = (
    "", "NA", "N/A", "n/a", "na", "<NA>", "#N/A", "NaN", "nan", "NAN", "-nan", "null", "NULL", "Null", "None", "NONE",
    "none", "?", "NaT", "#NULL!", "#N/A N/A", "1.#QNAN", "-1.#IND",
)  # fmt: skip

DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a source is read; None means: recognise it.

    Attributes:
        encoding: Python's name of the encoding of a text file.
        delimiter: One character between the fields of a CSV file.
        decimal: ``.`` or ``,``.
        missing_values: Texts that stand for a missing value in a text file, after blanks are stripped.
        text_columns: Columns that stay text even if they look like numbers; for data that an existing schema reads.
        sheet: Sheet of an Excel workbook; "" for the first.
        max_bytes: How large a file may be, also unpacked; 0 for the automatic limit on what is unpacked.
        name: Name of the source in messages.
    """

    encoding: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    missing_values: tuple[str, ...] = DEFAULT_MISSING_VALUES
    text_columns: tuple[str, ...] = ()
    sheet: str = ""
    max_bytes: int = 0
    name: str = "the data"

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise DataError(f"Expected one character as the delimiter, received {self.delimiter!r}.")
        if self.decimal not in (None, ".", ","):
            raise DataError(f"Expected '.' or ',' as the decimal mark, received {self.decimal!r}.")

    def named(self, name: str) -> Self:
        """Return the same options for a source of this name."""
        return replace(self, name=name)
