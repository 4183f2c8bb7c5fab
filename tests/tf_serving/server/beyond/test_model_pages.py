from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tf_serving.server.beyond.model_pages import page_routes
from tf_serving.server.extensions import HttpRequest, SignatureView


class OneVersion:
    """One version of one model, of which only what lies beside it counts."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def names(self) -> tuple[str, ...]:
        return ("m",)

    def available(self, model: str) -> tuple[int, ...]:
        return (1,) if model == "m" else ()

    def directory(self, model: str, version: int) -> str:
        del model, version
        return self._directory

    def signatures(self, model: str, version: int) -> dict[str, SignatureView]:
        del model, version
        numbers: Any = dict.fromkeys("abc", ("float32", (None,)))
        return {"serving_default": SignatureView("serving_default", "tensorflow/serving/predict", numbers, {})}


def test_numbers_that_json_has_no_word_for_are_left_out(tmp_path: Path) -> None:
    extra = tmp_path / "assets.extra"
    extra.mkdir()
    # As an export writes them whose first rows hold such values: TensorFlow Serving takes the bare tokens.
    (extra / "sample_request.json").write_text('{"instances": [{"a": Infinity, "b": NaN, "c": 1.5}]}')
    (extra / "profile.json").write_text('{"columns": [{"name": "a", "min": -Infinity, "max": 2.0}]}')
    pages = {route.pattern: route.handler for route in page_routes()}
    request = HttpRequest("GET", "/", "", {}, b"", "local", "r")
    view: Any = OneVersion(tmp_path)
    schema = json.loads(pages["/v1/models/(?P<model>[^/:]+)/schema"](request, {"model": "m"}, view).body)
    known = {
        entry["name"]: {key: entry[key] for key in ("example", "min", "max") if key in entry}
        for entry in schema["inputs"]
    }
    assert known == {"a": {"max": 2.0}, "b": {}, "c": {"example": 1.5}}
    assert b"Infinity" not in pages["/openapi.json"](request, {}, view).body
