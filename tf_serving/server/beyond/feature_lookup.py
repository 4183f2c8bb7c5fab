"""Features looked up by key, so that a request carries keys and the row's own columns. No TensorFlow here.

curl --header 'content-type: application/vnd.tamiz.keys+json' localhost:8501/v1/models/shop:predict \
     --data '{"instances": [{"customer_id": 17, "amount": 9.5}]}'

The tables are those of ``tamiz features publish``. A value that the request has itself is not looked up; a key that is
not in its table has no features, which the model takes as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import orjson

from tf_serving.answer_table import AnswerTable, AnswerTableError
from tf_serving.server.extensions import Arrays, ModelsView, SignatureView
from tf_serving.server.json_text import check_depth
from tf_serving.server.status import Code, ServingError, invalid

CONTENT_TYPE = "application/vnd.tamiz.keys+json"
MAX_ROWS = 10_000
MAX_DEPTH = 8
"""Deepest nesting; what is wrong in a body is quoted, which takes a level of the stack for each of its own."""

_TRUTHS = {"true": 1.0, "false": 0.0}

Rows = list[dict[str, Any]]


@final
class FeatureLookup:
    """Decodes bodies with keys; a background of the server, which closes the tables with it.

    Args:
        tables: Open; the key column of each is what requests carry.
    """

    def __init__(self, tables: Sequence[AnswerTable]) -> None:
        self._tables = tuple(tables)

    def start(self, models: ModelsView) -> None:
        """Nothing runs beside the requests."""
        del models

    def close(self) -> None:
        """Close the tables."""
        for table in self._tables:
            table.close()

    def decode(self, body: bytes, signature: SignatureView) -> Arrays:
        """Return the inputs of a signature: what the rows have, and for the rest the features of their keys.

        Args:
            body: ``{"instances": [{...}, ...]}``.
            signature: What the model takes.

        Raises:
            ServingError: The body is something else, a row lacks a key or a column, or the database fails.
        """
        rows = _rows(body)
        for name, (_, shape) in signature.inputs.items():
            if shape is not None and len(shape) != 1:
                raise invalid(f"Expected inputs of one value a row, but {name!r} has the shape {list(shape)}")
        for table in self._tables:
            self._fill(rows, table, signature)
        for number, row in enumerate(rows, start=1):
            absent = [name for name in signature.inputs if name not in row]
            if absent:
                raise invalid(f"Row {number} has no {absent[0]!r}, and no feature table has such a column")
        return {name: _column(rows, name, dtype) for name, (dtype, _) in signature.inputs.items()}

    def _fill(self, rows: Rows, table: AnswerTable, signature: SignatureView) -> None:
        """Adds the features of one table to the rows that lack them."""
        inputs = {}
        for column in table.columns:
            # A feature whose name the rows had already was learned under the group's name and its own.
            prefixed = f"{table.place.table}_{column}"
            name = prefixed if prefixed in signature.inputs else column
            if name in signature.inputs:
                inputs[name] = column
        wanted = [row for row in rows if not inputs.keys() <= row.keys()]
        if not wanted:
            return
        for number, row in enumerate(rows, start=1):
            if table.key not in row and not inputs.keys() <= row.keys():
                raise invalid(f"Row {number} has no key {table.key!r} to look features up by")
        keyed = [row for row in wanted if row[table.key] is not None]
        try:
            features = table.look_up([row[table.key] for row in keyed])
        except AnswerTableError as error:
            if "Cannot read" in str(error):  # the database, not the request
                raise ServingError(Code.UNAVAILABLE, str(error), retry_after=1) from error
            raise invalid(str(error)) from None
        found: dict[int, Mapping[str, Any]] = {
            id(row): known for row, known in zip(keyed, features, strict=True) if known is not None
        }
        for row in wanted:
            known = found.get(id(row), {})
            for name, column in inputs.items():
                row.setdefault(name, known.get(column))


def _rows(body: bytes) -> Rows:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error}") from None
    check_depth(document, MAX_DEPTH)
    rows = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise invalid('Expected {"instances": [{"KEY": ..., "COLUMN": ...}, ...]} with at least one row')
    if len(rows) > MAX_ROWS:
        raise invalid(f"Expected at most {MAX_ROWS:,} rows, received {len(rows):,}")
    return rows


def _column(rows: Rows, name: str, dtype: str) -> Any:
    values = [row[name] for row in rows]
    if dtype == "string":
        texts = np.empty(len(values), dtype=object)
        texts[:] = [_text(value, name, number) for number, value in enumerate(values, start=1)]
        return texts
    try:
        return np.array([_number(value) for value in values]).astype(np.dtype(dtype))
    except (TypeError, ValueError):
        number = next(number for number, value in enumerate(values, start=1) if not _is_number(value))
        received = str(values[number - 1])[:40]
        raise invalid(f"Expected a number as {name!r} of row {number}, received {received!r}") from None


def _number(value: Any) -> float:
    """Returns a value as a number; truths are words where they were published, and 1 and 0 where they were learned."""
    if value is None:
        return float("nan")
    return float(_TRUTHS.get(value, value) if isinstance(value, str) else value)


def _is_number(value: Any) -> bool:
    try:
        _number(value)
    except (TypeError, ValueError):
        return False
    return True


def _text(value: Any, name: str, number: int) -> bytes:
    """Returns a value as the text that it was learned as: whole numbers without decimals, nothing for none."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return (str(int(value)) if value.is_integer() else repr(value)).encode()
    if not isinstance(value, (str, int)):
        raise invalid(f"Expected text as {name!r} of row {number}, received {str(value)[:40]!r}")
    return str(value).encode()
