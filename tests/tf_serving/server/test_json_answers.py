"""Answers laid out as TensorFlow Serving's printer does, which this file writes down a second time, event by event."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_serving.server.json_answers import write_classifications, write_outputs, write_regressions
from tf_serving.server.status import ServingError


class Printer:
    """RapidJSON's PrettyWriter: four spaces a level, and a switch for lists on one line."""

    def __init__(self) -> None:
        self.text = ""
        self.levels: list[list[Any]] = []
        self.single = False

    def line(self) -> None:
        self.text += "\n" + " " * 4 * len(self.levels)

    def prefix(self, *, key: bool = False) -> None:
        if not self.levels:
            return
        kind, count = self.levels[-1]
        if kind == "[":
            self.text += ("," if count else "") + (" " if count and self.single else "")
            if not self.single:
                self.line()
        elif key:
            self.text += "," if count else ""
            self.line()
        else:
            self.text += ": "
        self.levels[-1][1] += 1 if kind == "[" or key else 0

    def value(self, text: str) -> None:
        self.prefix()
        self.text += text

    def key(self, name: str) -> None:
        self.prefix(key=True)
        self.text += json.dumps(name)

    def start(self, kind: str) -> None:
        self.prefix()
        self.text += kind
        self.levels.append([kind, 0])

    def end(self) -> None:
        kind, count = self.levels.pop()
        if count and not (kind == "[" and self.single):
            self.line()
        self.text += "]" if kind == "[" else "}"

    def tensor(self, alias: str, array: Any) -> None:
        if isinstance(array, np.ndarray) and array.ndim:
            self.start("[")
            for row in array:
                self.tensor(alias, row)
            self.end()
        elif isinstance(array, bytes) and alias.endswith("_bytes"):
            self.start("{")
            self.key("b64")
            self.value(json.dumps(base64.b64encode(array).decode()))
            self.end()
        elif isinstance(array, bytes):
            self.value(json.dumps(array.decode(), ensure_ascii=False))
        else:
            self.value(json.dumps(array.item()))


def expected_rows(outputs: dict[str, Any]) -> str:
    out = Printer()
    out.start("{")
    out.key("predictions")
    out.start("[")
    for index in range(len(next(iter(outputs.values())))):
        if len(outputs) > 1:
            out.start("{")
        out.single = True
        for alias in sorted(outputs):
            if len(outputs) > 1:
                out.key(alias)
            out.tensor(alias, outputs[alias][index])
        out.single = False
        if len(outputs) > 1:
            out.end()
    out.end()
    out.end()
    return out.text


def expected_columns(outputs: dict[str, Any]) -> str:
    out = Printer()
    out.start("{")
    out.key("outputs")
    if len(outputs) > 1:
        out.start("{")
    for alias in sorted(outputs):
        if len(outputs) > 1:
            out.key(alias)
        out.tensor(alias, outputs[alias])
    if len(outputs) > 1:
        out.end()
    out.end()
    return out.text


shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3)
numbers = hnp.arrays(np.int32, shapes) | hnp.arrays(np.bool_, shapes)
texts = hnp.arrays(object, shapes, elements=st.text(alphabet='ab,]["é {}%', max_size=4).map(str.encode))


@given(array=numbers | texts, alias=st.sampled_from(["y", "y_bytes", "100%s"]), num_outputs=st.integers(1, 2))
def test_the_layout_is_that_of_the_printer(array: Any, alias: str, num_outputs: int) -> None:
    outputs = {alias: array, "z": np.arange(len(array), dtype=np.int64)}
    chosen = dict(list(outputs.items())[:num_outputs])
    assert write_outputs(chosen, row_format=True).decode() == expected_rows(chosen)
    assert write_outputs(chosen, row_format=False).decode() == expected_columns(chosen)


def test_half_plus_two_is_answered_as_clients_see_it() -> None:
    y = np.array([2.5, 3.0, 4.5], np.float32)
    assert write_outputs({"y": y}, row_format=True) == b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    assert write_outputs({"y": y[:1]}, row_format=False) == b'{\n    "outputs": [\n        2.5\n    ]\n}'
    assert write_outputs({"y": np.float64(2.5)}, row_format=False) == b'{\n    "outputs": 2.5\n}'
    assert write_outputs({"y": b"a\0"}, row_format=False) == b'{\n    "outputs": "a\\u0000"\n}'  # type: ignore[dict-item]
    assert write_outputs({"y": np.zeros((0, 3), np.float32)}, row_format=True) == b'{\n    "predictions": []\n}'
    assert write_regressions(y) == b'{\n    "results": [2.5, 3.0, 4.5]\n}'
    rows = [[(b"yes", 2.0), ("no", -2.0)], [(b"yes", 3.0), (b"no", -3.0)]]
    assert write_classifications(rows) == (
        b'{\n    "results": [[["yes", 2.0], ["no", -2.0]], [["yes", 3.0], ["no", -3.0]]\n    ]\n}'
    )
    assert write_classifications([[], []]) == b'{\n    "results": [[], []\n    ]\n}'
    for write in (write_classifications, write_regressions):
        with pytest.raises(ServingError, match="Cannot convert empty"):
            write([])  # type: ignore[operator]


def test_exact_digits_are_those_of_tensorflow_serving() -> None:
    values = {
        np.float32: {
            0.9986682: "0.998668194", 0.1: "0.1", 9e6: "9e+06", 999999.0: "999999.0", 3e-4: "0.0003", 3e-5: "3e-05",
            16777217.0: "16777216.0", -0.0: "-0.0", float("nan"): "NaN", float("-inf"): "-Infinity",
        },
        np.float64: {0.1: "0.1", 1 / 3: "0.33333333333333331"},
    }  # fmt: skip
    for dtype, cases in values.items():
        array = np.array(list(cases), dtype)
        line = write_outputs({"y": array}, row_format=True, exact=True).decode().splitlines()[1]
        assert line == f'    "predictions": [{", ".join(cases.values())}'


def test_a_large_answer_is_written_quickly() -> None:
    array = np.zeros((64, 1000), np.float32)
    assert json.loads(write_outputs({"y": array}, row_format=False))["outputs"] == array.tolist()
    deep = np.zeros((1,) * 9 + (2,), np.int64)
    assert write_outputs({"y": deep}, row_format=False).decode() == expected_columns({"y": deep})
