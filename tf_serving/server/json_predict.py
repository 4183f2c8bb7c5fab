"""The body of a REST predict request to tensors. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from numpy.typing import NDArray

from tf_serving.server.json_numbers import QUICK_NUMBERS_BYTES, NumberDocument, read_numbers
from tf_serving.server.json_tensors import TensorBuilder, is_base64, to_array, to_array_quickly
from tf_serving.server.json_text import check_depth, dump, parse
from tf_serving.server.status import ServingError, invalid

Arrays = dict[str, NDArray[Any]]


def read_document(body: bytes, *, max_depth: int) -> Any:
    """Return a body as JSON values, or as a NumberDocument where it is a long list of numbers and nothing else.

    Args:
        body: Of a predict request.
        max_depth: Deepest nesting that is read.

    Raises:
        ServingError: It is no JSON.
    """
    numbers = read_numbers(body) if len(body) >= QUICK_NUMBERS_BYTES else None
    return parse(body, max_depth=max_depth) if numbers is None else numbers


def signature_name(document: Any) -> str:
    """Return the name of the signature a request asks for, or "".

    Raises:
        ServingError: The document is no object, or the name is not text.
    """
    if type(document) is NumberDocument:
        return document.signature_name
    if type(document) is not dict:
        raise invalid(f"JSON Value: {dump(document)} Is not object")
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {dump(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(
    document: Any, dtypes: Mapping[str, int], *, body: bytes, max_depth: int, max_rows: int
) -> tuple[Arrays, bool]:
    """Return the inputs by alias, and whether the request has rows (``instances``).

    Args:
        document: What ``read_document`` or ``parse`` returned, an object if it is JSON.
        dtypes: Number of the type of every input by alias.
        body: What was parsed; searched for booleans.
        max_depth: Deepest nesting.
        max_rows: Most instances.

    Raises:
        ServingError: With TensorFlow Serving's words.
    """
    if type(document) is NumberDocument:
        if len(dtypes) == 1:
            ((alias, dtype),) = dtypes.items()
            array = document.array(dtype, max_rows=max_rows, max_depth=max_depth)
            if array is not None:
                return {alias: array}, document.row_format
        document = parse(body, max_depth=max_depth)
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


def _rows_quickly(instances: list[Any], dtypes: Mapping[str, int], body: bytes) -> Arrays | None:
    booleans = b"true" in body or b"false" in body
    if type(instances[0]) is not dict:
        if len(dtypes) != 1:
            return None
        ((alias, dtype),) = dtypes.items()
        array = to_array_quickly(instances, dtype, may_hold_booleans=booleans)
        return None if array is None else {alias: array}
    try:
        if set(map(len, instances)) != {len(dtypes)}:
            return None
        arrays = {}
        for alias, dtype in dtypes.items():
            array = to_array_quickly(list(map(itemgetter(alias), instances)), dtype, may_hold_booleans=booleans)
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
    booleans = b"true" in body or b"false" in body
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
