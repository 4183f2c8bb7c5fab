"""Whatever a client sends, it gets an answer that is not the server's fault."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tf_serving.server.extensions import HttpRequest

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just({"b64": "eA=="})
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "b", "values"]), inner),
    max_leaves=8,
)
keys = st.sampled_from(["instances", "inputs", "examples", "context", "signature_name", "other"])
signatures = st.sampled_from(["int32", "string", "total", "odd", "classify_x_to_y", "regress_x_to_y", "bool", ""])
bodies = st.one_of(
    st.binary(max_size=30),
    st.tuples(st.dictionaries(keys, values, max_size=3), st.none() | signatures).map(
        lambda parts: json.dumps(parts[0] | ({} if parts[1] is None else {"signature_name": parts[1]})).encode()
    ),
)
names = st.sampled_from(["half_plus_two", "types", "pair", "none", "%00", "..", "%2e%2e%2f", "a" * 300])
places = st.sampled_from(["", "/versions/1", "/versions/99", "/labels/stable", "/labels/%ff", "/versions/" + "9" * 60])
verbs = st.sampled_from([":predict", ":classify", ":regress", "", "/metadata", ":Predict", "/", ":predict/"])
pages = (
    "/healthz",
    "/readyz",
    "/v1/healthz",
    "/v1/models",
    "/monitoring/prometheus/metrics",
    "/monitoring/",
    "/v1/shadow",
)
paths = (
    st.builds("/v1/models/{}{}{}".format, names, places, verbs)
    | st.sampled_from(pages)
    | st.text(max_size=20).map("/{}".format)
)
methods = st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])


@settings(deadline=None, max_examples=250)
@given(method=methods, path=paths, body=bodies)
def test_no_request_is_an_internal_error(server: Any, method: str, path: str, body: bytes) -> None:
    request = HttpRequest(method, path, "", {}, body, "127.0.0.1", "id")
    response = server.server._rest.answer(request)
    assert response.status in (200, 400, 404, 501)
    if response.content_type == "application/json" and response.body:
        answer = json.loads(response.body)
        assert ("error" in answer) == (response.status != 200)
        assert "Traceback" not in str(answer.get("error"))
