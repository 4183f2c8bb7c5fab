"""Answers that ``tamiz predict`` has computed before, looked up by key. No TensorFlow here.

GET  /v1/precomputed/KEY                    {"answer": {...}}, or 404
POST /v1/precomputed {"keys": [1, 2]}       {"answers": [{...}, null]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final
from urllib.parse import unquote

import orjson

from tf_serving.answer_table import AnswerTable, AnswerTableError
from tf_serving.server.extensions import HttpRequest, HttpResponse, ModelsView, Route
from tf_serving.server.json_text import check_depth
from tf_serving.server.status import Code, ServingError, invalid

MAX_BODY_BYTES = 1 << 20
MAX_DEPTH = 8
"""Deepest nesting; a key that is none is quoted, which takes a level of the stack for each of its own."""


@final
class Precomputed:
    """Look-ups in a table; a background of the server, which closes the table with it.

    Args:
        table: Open.
    """

    def __init__(self, table: AnswerTable) -> None:
        self._table = table

    def routes(self) -> tuple[Route, ...]:
        """Return the paths."""
        return (
            Route("GET", r"/v1/precomputed/(?P<key>[^/]+)", self._one),
            Route("POST", "/v1/precomputed", self._several),
        )

    def start(self, models: ModelsView) -> None:
        """Nothing runs beside the requests."""
        del models

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    def _one(self, request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
        del request, models
        key = unquote(groups["key"])
        (answer,) = self._look_up([key])
        if answer is None:
            raise ServingError(Code.NOT_FOUND, f"There is no answer for {self._table.key} {key[:80]!r}")
        return _json({"answer": answer})

    def _several(self, request: HttpRequest, groups: Mapping[str, str], models: ModelsView) -> HttpResponse:
        del groups, models
        if len(request.body) > MAX_BODY_BYTES:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Expected at most {MAX_BODY_BYTES:,} bytes of keys", http_status=413
            )
        try:
            document = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise invalid(f"JSON Parse error: {error}") from None
        check_depth(document, MAX_DEPTH)
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise invalid('Expected {"keys": [...]}')
        return _json({"answers": self._look_up(keys)})

    def _look_up(self, keys: list[Any]) -> list[dict[str, Any] | None]:
        try:
            return self._table.look_up(keys)
        except AnswerTableError as error:
            if "Cannot read" in str(error):  # the database, not the request
                raise ServingError(Code.UNAVAILABLE, str(error), retry_after=1) from error
            raise invalid(str(error)) from None


def _json(content: Any) -> HttpResponse:
    # orjson writes NaN as null; what a database holds beside numbers and text (dates, decimals) becomes text.
    return HttpResponse(200, orjson.dumps(content, default=str))
