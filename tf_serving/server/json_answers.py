"""Tensors to the body of a REST answer, laid out byte for byte as TensorFlow Serving prints it. No TensorFlow here.

Its printer indents by four spaces and keeps the values of a row on one line; a columnar answer has a line for every
value. Digits are the shortest ones that give the same number; with ``exact`` they are TensorFlow Serving's own: six
where they suffice, else nine (float) or seventeen (double).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tf_serving.server import tensor_types as types
from tf_serving.server.status import invalid

_NUMBERS = orjson.OPT_SERIALIZE_NUMPY
_WRITABLE = {types.NUMPY[number] for number in types.NAMES} - {
    types.NUMPY[number] for number in (types.COMPLEX64, types.COMPLEX128, types.BFLOAT16, types.HALF, types.UINT16)
}
_WRITABLE_NUMBERS = _WRITABLE - {types.NUMPY[types.STRING]}
_DIGITS = {np.dtype(np.float32): 9, np.dtype(np.float64): 17}
MAX_MARKED_RANK = 8
"""Tensors of more dimensions are indented the slow way."""


def write_outputs(outputs: Mapping[str, NDArray[Any]], *, row_format: bool, exact: bool = False) -> bytes:
    """Return the body of a predict answer.

    Args:
        outputs: Tensors by alias.
        row_format: ``predictions``, a value or object a row, or ``outputs``, a tensor or object of tensors.
        exact: Whether floats have TensorFlow Serving's digits.

    Raises:
        ServingError: A tensor's type cannot be written, or row format is asked of outputs without equal rows.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not row_format:
        return b'{\n    "outputs": %b\n}' % _columns(outputs, exact)
    if len(outputs) == 1:
        ((_, array),) = outputs.items()
        if array.ndim and array.size and array.dtype in _WRITABLE_NUMBERS:  # what most models answer
            text = _numbers(array, exact).replace(b",", b", ")
            return b'{\n    "predictions": %b\n    ]\n}' % text[:-1]
    _check_rows(outputs)
    if len(outputs) > 1:
        return b'{\n    "predictions": %b\n}' % _row_objects(outputs, exact)
    ((alias, array),) = outputs.items()
    if not len(array):
        return b'{\n    "predictions": []\n}'
    return b'{\n    "predictions": [%b\n    ]\n}' % _on_one_line(alias, array, 1, exact)[1:-1]


def write_classifications(rows: Sequence[Sequence[tuple[Any, float]]], *, exact: bool = False) -> bytes:
    """Return the body of a classify answer.

    Args:
        rows: Label and score of every class, an example each.
        exact: Whether scores have TensorFlow Serving's digits.
    """
    if not rows:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    scores = np.array([[score for _, score in row] for row in rows], np.float32)
    texts = [text.split(b",") for text in _numbers(scores, exact)[2:-2].split(b"],[")]
    written = (
        b"[%b]" % b", ".join(b"[%b, %b]" % (_text(label), text) for (label, _), text in zip(row, line, strict=True))
        if row
        else b"[]"
        for row, line in zip(rows, texts, strict=False)
    )
    return b'{\n    "results": [%b\n    ]\n}' % b", ".join(written)


def write_regressions(values: NDArray[Any], *, exact: bool = False) -> bytes:
    """Return the body of a regress answer.

    Args:
        values: Of every example.
        exact: Whether they have TensorFlow Serving's digits.
    """
    if not len(values):
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return b'{\n    "results": %b\n}' % _numbers(values, exact).replace(b",", b", ")


def _check_rows(outputs: Mapping[str, NDArray[Any]]) -> None:
    num_rows: int | None = None
    for alias, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if num_rows is not None and len(array) != num_rows:
            raise invalid(f"Tensor name: {alias} has inconsistent batch size: {len(array)} expecting: {num_rows}")
        num_rows = len(array)


def _row_objects(outputs: Mapping[str, NDArray[Any]], exact: bool) -> bytes:
    aliases = sorted(outputs)
    columns = [list(_rows(alias, outputs[alias], exact)) for alias in aliases]
    if not columns[0]:
        return b"[]"
    # A per cent sign in an alias is text, not a place to fill.
    members = (b"\n            %b: %%b" % orjson.dumps(alias).replace(b"%", b"%%") for alias in aliases)
    template = b"\n        {%b\n        }" % b",".join(members)
    return b"[%b\n    ]" % b",".join(map(template.__mod__, zip(*columns, strict=True)))


def _rows(alias: str, array: NDArray[Any], exact: bool) -> Iterable[bytes]:
    """Return the JSON text of every row; a column of numbers is written at once and cut where its rows end."""
    if array.dtype != object and array.ndim <= 2 and array.size:
        text = _numbers(array, exact)
        if array.ndim == 1:
            return text[1:-1].split(b",")
        return [b"[%b]" % row for row in text[2:-2].replace(b"],[", b"\n").replace(b",", b", ").split(b"\n")]
    return [_on_one_line(alias, row, 3, exact) for row in array]


def _on_one_line(alias: str, array: Any, depth: int, exact: bool) -> bytes:
    """Return a tensor without line breaks between its values.

    Args:
        alias: Of the output.
        array: The tensor; text of no dimension is bytes.
        depth: Objects and lists around it.
        exact: Whether floats have TensorFlow Serving's digits.
    """
    texts = _texts(array)
    if texts is None:
        return _numbers(np.asarray(array), exact).replace(b",", b", ")
    return _texts_on_one_line(alias, texts, depth)


def _texts_on_one_line(alias: str, value: Any, depth: int) -> bytes:
    if type(value) is list:
        return b"[%b]" % b", ".join(_texts_on_one_line(alias, element, depth + 1) for element in value)
    if not alias.endswith("_bytes"):
        return _text(value)
    # An object has its lines even here.
    return b'{%b"b64": "%b"%b}' % (_line(depth + 1), b64encode(_raw(value)), _line(depth))


def _texts(array: Any) -> Any:
    """Return text as nested lists (NumPy's own text types would cut zero bytes off); None for numbers."""
    if isinstance(array, bytes | str):
        return array
    return array.tolist() if array.dtype == object else None


def _columns(outputs: Mapping[str, NDArray[Any]], exact: bool) -> bytes:
    if len(outputs) == 1:
        ((alias, array),) = outputs.items()
        return _indented(alias, array, 1, exact)
    members = (
        b"\n        %b: %b" % (orjson.dumps(alias), _indented(alias, outputs[alias], 2, exact))
        for alias in sorted(outputs)
    )
    return b"{%b\n    }" % b",".join(members)


def _indented(alias: str, array: Any, depth: int, exact: bool) -> bytes:
    """Return a tensor with a line for every value."""
    texts = _texts(array)
    if texts is not None:
        return _slowly_indented(_readable(alias, texts), depth)
    array = np.asarray(array)
    rank = array.ndim
    text = _numbers(array, exact)
    if not array.size or rank > MAX_MARKED_RANK:
        return _slowly_indented(array.tolist(), depth)
    if not rank:
        return text
    inner = depth + rank
    text = text[rank:-rank]
    for level in range(rank - 1, 0, -1):
        text = text.replace(b"]" * level + b"," + b"[" * level, bytes([level]))
    text = text.replace(b",", b"," + _line(inner))
    for level in range(1, rank):
        between = _closed(inner, level) + b"," + _line(inner - level) + _opened(inner, level)
        text = text.replace(bytes([level]), between)
    return _opened(inner, rank) + text + _closed(inner, rank)


def _line(depth: int) -> bytes:
    return b"\n" + b"    " * depth


def _opened(inner: int, levels: int) -> bytes:
    return b"".join(b"[" + _line(inner - level) for level in range(levels - 1, -1, -1))


def _closed(inner: int, levels: int) -> bytes:
    return b"".join(_line(inner - 1 - level) + b"]" for level in range(levels))


def _slowly_indented(value: Any, depth: int) -> bytes:
    return json.dumps(value, indent=4, ensure_ascii=False).replace("\n", "\n" + " " * 4 * depth).encode()


def _readable(alias: str, value: Any) -> Any:
    if type(value) is list:
        return [_readable(alias, element) for element in value]
    raw = _raw(value)
    # Bytes that are no UTF-8 would make the whole answer unreadable.
    return {"b64": b64encode(raw).decode()} if alias.endswith("_bytes") else raw.decode("utf-8", "replace")


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: Any) -> bytes:
    return orjson.dumps(_raw(value).decode("utf-8", "replace"))


def _numbers(array: NDArray[Any], exact: bool) -> bytes:
    """Return a tensor of numbers or booleans as JSON without any space."""
    if array.dtype not in _WRITABLE:
        raise invalid(f"Failed to write JSON value for tensor type: {types.type_name(types.number_of(array.dtype))}")
    if exact and array.dtype.kind == "f":
        return _exactly(array.tolist(), array.dtype).encode()
    if array.size == 0:
        return orjson.dumps(array.tolist())
    text = orjson.dumps(np.ascontiguousarray(array.reshape(1) if array.ndim == 0 else array), option=_NUMBERS)
    if b"null" in text:
        # That is how orjson writes NaN and infinities. Through text, so that a float32 keeps its own shortest digits.
        numbers = array.astype("U32").astype(np.float64).tolist()
        return json.dumps(numbers, separators=(",", ":")).encode()
    return text if array.ndim else text[1:-1]


def _exactly(value: Any, dtype: Any) -> str:
    if type(value) is list:
        return f"[{','.join(_exactly(element, dtype) for element in value)}]"
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    if dtype.type(text) != value:
        text = f"{value:.{_DIGITS[dtype]}g}"
    return text if "." in text or "e" in text else f"{text}.0"
