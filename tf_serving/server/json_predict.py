"""The body of a REST predict request to tensors, and tensors to the body of the answer. No TensorFlow here."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tf_serving.server import tensor_types as types
from tf_serving.server.json_tensors import TensorBuilder, is_base64, to_array, to_batch
from tf_serving.server.json_text import check_depth, dump
from tf_serving.server.status import ServingError, invalid

Arrays = dict[str, NDArray[Any]]

_NUMBERS = orjson.OPT_SERIALIZE_NUMPY
_WRITABLE = {types.NUMPY[number] for number in types.NAMES} - {
    types.NUMPY[number] for number in (types.COMPLEX64, types.COMPLEX128, types.BFLOAT16, types.HALF, types.UINT16)
}


def signature_name(document: Any) -> str:
    """Return the name of the signature a request asks for, or "".

    Raises:
        ServingError: The document is no object, or the name is not text.
    """
    if type(document) is not dict:
        raise invalid(f"JSON Value: {dump(document)} Is not object")
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {dump(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(
    document: dict[str, Any], dtypes: Mapping[str, int], *, body: bytes, max_depth: int, max_rows: int
) -> tuple[Arrays, bool]:
    """Return the inputs by alias, and whether the request has rows (``instances``).

    Args:
        document: The parsed body.
        dtypes: Number of the type of every input by alias.
        body: What was parsed; searched for booleans.
        max_depth: Deepest nesting.
        max_rows: Most instances.

    Raises:
        ServingError: With TensorFlow Serving's words.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {dump(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        instances = document["instances"]
        if type(instances) is not list:
            raise invalid(f"JSON Value: {dump(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {dump(document)} No values in 'instances' array")
        if len(instances) > max_rows:
            raise invalid(f"Request has {len(instances)} instances, more than the {max_rows} that are allowed")
        quick = _rows_quickly(instances, dtypes, body)
        if quick is not None:
            return quick, True
        check_depth(instances, max_depth)
        return _rows_slowly(instances, dtypes), True
    if "inputs" in document:
        return _columns(document["inputs"], dtypes, body, max_depth), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _has_booleans(body: bytes) -> bool:
    return b"true" in body or b"false" in body


def _rows_quickly(instances: list[Any], dtypes: Mapping[str, int], body: bytes) -> Arrays | None:
    booleans = _has_booleans(body)
    if type(instances[0]) is not dict:
        if len(dtypes) != 1:
            return None
        ((alias, dtype),) = dtypes.items()
        array = to_batch(instances, dtype, may_hold_booleans=booleans)
        return None if array is None else {alias: array}
    try:
        if set(map(len, instances)) != {len(dtypes)}:
            return None
        arrays = {}
        for alias, dtype in dtypes.items():
            array = to_batch(list(map(itemgetter(alias), instances)), dtype, may_hold_booleans=booleans)
            if array is None:
                return None
            arrays[alias] = array
    except (KeyError, TypeError, IndexError):
        return None
    return arrays


def _is_row(value: Any) -> bool:
    return type(value) is dict and not is_base64(value)


def _rows_slowly(instances: list[Any], dtypes: Mapping[str, int]) -> Arrays:
    if type(instances[0]) is not dict and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    builders = {alias: TensorBuilder(dtype) for alias, dtype in dtypes.items()}
    rows_are_objects = _is_row(instances[0])
    names = sorted(dtypes)
    for index, row in enumerate(instances):
        if _is_row(row) != rows_are_objects:
            if rows_are_objects:
                raise invalid(f"Expecting object but got list at item {index} of input list")
            raise invalid(f"Expecting value/list but got object at item {index} of input list")
        if rows_are_objects:
            _add_row(builders, row, index, names)
        else:
            try:
                builders[names[0]].add(row)
            except ServingError as error:
                raise invalid(
                    f"Failed to process element: {index} of 'instances' list. Error: {error.code.name}: {error.message}"
                ) from None
    return {alias: builder.batch() for alias, builder in builders.items()}


def _add_row(builders: Mapping[str, TensorBuilder], row: dict[str, Any], index: int, names: list[str]) -> None:
    for key, value in row.items():
        try:
            if key not in builders:
                raise invalid(f"JSON object: does not have named input: {key}")
            builders[key].add(value)
        except ServingError as error:
            raise invalid(
                f"Failed to process element: {index} key: {key} of 'instances' list. Error: {error.code.name}: "
                f"{error.message}"
            ) from None
    if len(row) != len(names):
        raise invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: {dump(row)} keys must be equal to: "
            f"{','.join(names)}"
        )


def _columns(inputs: Any, dtypes: Mapping[str, int], body: bytes, max_depth: int) -> Arrays:
    check_depth(inputs, max_depth)
    booleans = _has_booleans(body)
    if not _is_row(inputs):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        ((alias, dtype),) = dtypes.items()
        return {alias: to_array(inputs, dtype, may_hold_booleans=booleans)}
    arrays = {}
    for alias, dtype in dtypes.items():
        if alias not in inputs:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
        arrays[alias] = to_array(inputs[alias], dtype, may_hold_booleans=booleans)
    return arrays


def write_outputs(outputs: Mapping[str, NDArray[Any]], *, row_format: bool) -> bytes:
    """Return the body of an answer.

    Args:
        outputs: Tensors by alias.
        row_format: ``predictions``, a value or object a row, or ``outputs``, a tensor or object of tensors.

    Raises:
        ServingError: A tensor's type cannot be written, or row format is asked of outputs without equal rows.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if row_format:
        _check_rows(outputs)
    if len(outputs) == 1:
        ((alias, array),) = outputs.items()
        body = _tensor_json(alias, array)
    elif row_format:
        body = _row_objects(outputs)
    else:
        members = (b"%b:%b" % (orjson.dumps(alias), _tensor_json(alias, outputs[alias])) for alias in sorted(outputs))
        body = b"{%b}" % b",".join(members)
    return b'{"%b":%b}' % (b"predictions" if row_format else b"outputs", body)


def _check_rows(outputs: Mapping[str, NDArray[Any]]) -> None:
    num_rows: int | None = None
    for alias, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if num_rows is not None and len(array) != num_rows:
            raise invalid(f"Tensor name: {alias} has inconsistent batch size: {len(array)} expecting: {num_rows}")
        num_rows = len(array)


def _row_objects(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    aliases = sorted(outputs)
    columns = [_rows_json(alias, outputs[alias]) for alias in aliases]
    # A per cent sign in an alias is text, not a place to fill.
    template = b"{%b}" % b",".join(orjson.dumps(alias).replace(b"%", b"%%") + b":%b" for alias in aliases)
    return b"[%b]" % b",".join(map(template.__mod__, zip(*columns, strict=True)))


def _rows_json(alias: str, array: NDArray[Any]) -> Iterable[bytes]:
    """Return the JSON text of every row; a column is written at once and cut where its rows end."""
    if len(array) == 0:
        return []
    if array.dtype != object and array.ndim <= 2 and array.size:
        text = _tensor_json(alias, array)
        if array.ndim == 1:
            return text[1:-1].split(b",")
        return [b"[%b]" % row for row in text[2:-2].split(b"],[")]
    return [_tensor_json(alias, row) for row in array] if array.ndim > 1 else _texts_json(alias, array.tolist())


def _tensor_json(alias: str, array: Any) -> bytes:
    if isinstance(array, bytes):
        return _texts_json(alias, [array])[0]
    array = np.asarray(array)
    if array.dtype == object:
        return _text_tensor_json(alias, array)
    if array.dtype not in _WRITABLE:
        raise invalid(f"Failed to write JSON value for tensor type: {types.type_name(types.number_of(array.dtype))}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        # orjson writes null. Through text, so that a float32 keeps its own shortest digits.
        numbers = array.astype("U32").astype(np.float64).tolist()
        return json.dumps(numbers, separators=(",", ":")).encode()
    if array.ndim == 0:
        return orjson.dumps(array.reshape(1), option=_NUMBERS)[1:-1]
    if array.size == 0:
        return orjson.dumps(array.tolist())
    return orjson.dumps(np.ascontiguousarray(array), option=_NUMBERS)


def _text_tensor_json(alias: str, array: NDArray[Any]) -> bytes:
    if array.ndim == 0:
        return _texts_json(alias, [array.item()])[0]
    if array.ndim == 1:
        return b"[%b]" % b",".join(_texts_json(alias, array.tolist()))
    return b"[%b]" % b",".join(_text_tensor_json(alias, row) for row in array)


def _texts_json(alias: str, values: list[Any]) -> list[bytes]:
    raw = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    if alias.endswith("_bytes"):
        return [b'{"b64":"%b"}' % b64encode(value) for value in raw]
    # Bytes that are no UTF-8 would make the whole answer unreadable.
    return [orjson.dumps(value.decode("utf-8", "replace")) for value in raw]
