"""The OpenAPI document is what the server does: schemathesis sends what the document allows, and what it does not."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tf_serving.client_transport import API_KEY_HEADER

MAX_EXAMPLES = 25


@pytest.fixture(scope="module")
def operations(beyond: Any) -> dict[str, Any]:
    """The operations of the document by method and path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of a tool's own imports
        schemathesis = pytest.importorskip("schemathesis")
        status, document, _ = beyond.running.http("GET", "/openapi.json", headers={"x-api-key": "open sesame"})
        assert status == 200
        schema = schemathesis.openapi.from_dict(document)
        found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


NAMES = [
    "POST /v1/models/penguins:predict",
    "GET /v1/models/penguins",
    "GET /v1/models/penguins/metadata",
    "GET /v1/models/penguins/schema",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "mode"), [(NAMES[0], "NEGATIVE"), *((name, "POSITIVE") for name in NAMES)])
def test_the_server_does_what_the_document_says(beyond: Any, operations: dict[str, Any], name: str, mode: str) -> None:
    import schemathesis

    assert sorted(operations) == sorted(NAMES)
    operation = operations[name]
    statuses: set[int] = set()

    @settings(
        max_examples=MAX_EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    def send(case: Any) -> None:
        response = case.call(base_url=f"http://{beyond.address}", headers={API_KEY_HEADER: "open sesame"}, timeout=20)
        statuses.add(response.status_code)
        assert response.status_code < 500, (response.text, case.body)
        assert response.headers["content-type"] == ["application/json"]
        body = json.loads(response.content)
        assert ("error" in body) == (response.status_code != 200)
        documented = operation.definition.raw["responses"]
        assert str(response.status_code) in documented or "default" in documented
        if response.status_code != 200:
            assert "Traceback" not in body["error"]

    send()
    assert 200 in statuses if mode == "POSITIVE" else 400 in statuses
