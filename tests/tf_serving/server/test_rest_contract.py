"""TensorFlow Serving's REST contract, row by row."""

from __future__ import annotations

import base64
import gzip
import json
import math
import urllib.request
from typing import Any

import pytest

HALF = "half_plus_two"
TYPES = "types"


def error(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    assert list(body) == ["error"]
    return status, body["error"]


def test_row_and_column_requests_are_answered_in_kind(http_client: Any) -> None:
    assert http_client.predict(HALF, {"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [3.5, 4.0, 5.5]})
    assert http_client.predict(HALF, {"instances": [{"x": 1.0}, {"x": 2}]}) == (200, {"predictions": [3.5, 4.0]})
    assert http_client.predict(HALF, {"inputs": [1.0, 2.0]}) == (200, {"outputs": [3.5, 4.0]})
    assert http_client.predict(HALF, {"inputs": {"x": [1.0], "ignored": 3}}) == (200, {"outputs": [3.5]})


def test_several_outputs_are_objects(http_client: Any) -> None:
    rows = {"instances": [{"a": [1, 2], "b": "q"}, {"a": [3, 4.5], "b": {"b64": "eA=="}}]}
    expected = [{"sum": 3.0, "text": "Q", "twice": [2.0, 4.0]}, {"sum": 7.5, "text": "X", "twice": [6.0, 9.0]}]
    assert http_client.predict("pair", rows) == (200, {"predictions": expected})
    columns = {"inputs": {"a": [[1, 2]], "b": ["q"]}}
    assert http_client.predict("pair", columns) == (
        200,
        {"outputs": {"sum": [3.0], "text": ["Q"], "twice": [[2.0, 4.0]]}},
    )


def test_versions_and_labels_are_in_the_path(http_client: Any) -> None:
    def ask(path: str) -> Any:
        return http_client("POST", f"/v1/models/{HALF}{path}:predict", {"instances": [0.0]})[1]

    assert ask("/versions/1") == ask("/labels/stable") == {"predictions": [2.0]}
    assert ask("") == ask("/versions/2") == ask("/labels/canary") == {"predictions": [3.0]}
    assert http_client("POST", f"/V1/MODELS/{HALF}:PREDICT", {"instances": [0.0]})[0] == 200
    assert http_client("POST", "/v1/models/half%5Fplus%5Ftwo:predict", {"instances": [0.0]})[0] == 200


def test_classify_and_regress(http_client: Any) -> None:
    classify = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert http_client.predict(HALF, classify, "classify") == (
        200,
        {"results": [[["yes", 4.0], ["no", -4.0]], [["yes", 5.0], ["no", -5.0]]]},
    )
    scores = {"signature_name": "scores_only", "examples": [{"x": 2.0}]}
    assert http_client.predict(HALF, scores, "classify")[1] == {"results": [[["", 4.0], ["", -4.0]]]}
    regress = {"signature_name": "regress_x_to_y", "context": {"x": 8.0}, "examples": [{"x2": 1.0}, {"x": 2.0}]}
    assert http_client.predict(HALF, regress, "regress") == (200, {"results": [7.0, 4.0]})


BODY_ERRORS = [
    (b"", "JSON Parse error: The document is empty"),
    (b"{", "JSON Parse error: Missing a name for object member. at offset: 1"),
    (b'{"instances": [1 2]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
    (b'{"instances": x}', "JSON Parse error: Invalid value. at offset: 14"),
    (b'{"instances": [1e999]}', "JSON Parse error: Number too big to be stored in double."),
    (b'{"a": "\xff"}', "JSON Parse error: Invalid encoding in string. at offset: 7"),
    (b"[1]", "JSON Value: [\n    1\n] Is not object"),
    (b'{"signature_name": 3}', "not formatted correctly. 'signature_name' key must be a string value."),
    (b'{"instances": [1], "inputs": [1]}', "expecting only one of 'inputs' or 'instances' keys to exist "),
    (b"{}", "Missing 'inputs' or 'instances' key"),
    (b'{"instances": 1}', "Expecting 'instances' to be an list/array"),
    (b'{"instances": []}', "No values in 'instances' array"),
    (
        b'{"instances": [1, {"x": 1}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    (b'{"instances": [{"x": 1}, 1]}', "Expecting object but got list at item 1 of input list"),
    (
        b'{"instances": [{"y": 1}]}',
        "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have "
        "named input: y",
    ),
    (b'{"instances": [{}]}', "of 'instances' list. JSON object: {} keys must be equal to: x"),
    (b'{"instances": [[1], [1, 2]]}', "Expecting tensor size: 1 but got: 2"),
    (b'{"instances": [[[1, 2]], [[1], [2]]]}', "Expecting shape [1,2] but got: [2,1]"),
    (b'{"instances": [[[1], [1, 2]]]}', "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    (b'{"instances": [[1, [2]]]}', "Encountered list at unexpected level: 1 expected < 1"),
    (b'{"instances": [[[1], 2]]}', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    (b'{"instances": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float'),
    (b'{"instances": [true]}', "JSON Value: true Type: True is not of expected type: float"),
    (b'{"instances": [1, true]}', "JSON Value: true Type: True is not of expected type: float"),
    (b'{"instances": [null]}', "JSON Value: null Type: Null is not of expected type: float"),
    (b'{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
    (b'{"instances": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}", "nested deeper than 32 levels"),
    (b"[" * 100_000, "nested deeper than 32 levels"),
]


@pytest.mark.parametrize(("body", "message"), BODY_ERRORS, ids=range(len(BODY_ERRORS)))
def test_a_bad_body_is_refused_in_words(http_client: Any, body: bytes, message: str) -> None:
    status, text = error(http_client.predict(HALF, body))
    assert status == 400
    assert message in text


def test_multiple_inputs_need_objects(http_client: Any) -> None:
    assert error(http_client.predict("pair", {"instances": [[1, 2]]}))[1].startswith(
        "instances is a plain list, but expecting list of objects as multiple input tensors required"
    )
    assert error(http_client.predict("pair", {"inputs": [[1, 2]]}))[1].startswith(
        "inputs is a plain value/list, but expecting an object as multiple input tensors required"
    )
    assert error(http_client.predict("pair", {"instances": [{"a": [1, 2]}]}))[1].endswith("keys must be equal to: a,b")


NAMED_ERRORS = [
    ("POST", "/v1/models/none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
    (
        "POST",
        "/v1/models/half_plus_two/versions/9:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Specific(half_plus_two, 9)",
    ),
    (
        "POST",
        "/v1/models/half_plus_two/labels/beta:predict",
        {"instances": [1]},
        400,
        "Unrecognized servable version label: beta",
    ),
    # TensorFlow Serving looks for the label before it looks for the model.
    (
        "POST",
        "/v1/models/none/labels/stable:predict",
        {"instances": [1]},
        400,
        "Unrecognized servable version label: stable",
    ),
    (
        "POST",
        "/v1/models/half_plus_two:predict",
        {"instances": [1], "signature_name": "s"},
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    (
        "POST",
        "/v1/models/half_plus_two:classify",
        {"examples": [{"x": 1.0}], "signature_name": "s"},
        400,
        "No signature was found with the name: s",
    ),
    (
        "POST",
        "/v1/models/half_plus_two/versions/99999999999999999999:predict",
        {},
        400,
        "Failed to convert version: 99999999999999999999 to numeric.",
    ),
    ("GET", "/v1/models/none", None, 404, "Could not find any versions of model none"),
    ("GET", "/v1/models/half_plus_two/versions/9", None, 404, "Could not find version 9 of model half_plus_two"),
    ("GET", "/v1/nothing", None, 400, "Malformed request: GET /v1/nothing"),
    ("PUT", "/v1/models/half_plus_two", b"{}", 400, "Malformed request: PUT /v1/models/half_plus_two"),
    ("DELETE", "/v1/models/half_plus_two", None, 400, "Malformed request: DELETE /v1/models/half_plus_two"),
    ("POST", "/v1/models/a/b:predict", b"{}", 400, "Malformed request: POST /v1/models/a/b:predict"),
    (
        "POST",
        "/v1/models/%2e%2e%2fpair:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Latest(../pair)",
    ),
    ("GET", "/v1/models/%00", None, 404, "Could not find any versions of model \x00"),
    ("GET", "/v1/models/..", None, 404, "Could not find any versions of model .."),
    ("POST", "/v1/models/a%2fb:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(a/b)"),
    ("OPTIONS", "/v1/models/half_plus_two", None, 400, "Origin header is missing in CORS preflight"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "message"), NAMED_ERRORS)
def test_unknown_names_are_refused_in_words(
    http_client: Any, method: str, path: str, body: Any, status: int, message: str
) -> None:
    answer = http_client(method, path, body)
    assert error(answer[:2]) == (status, message)
    assert answer[2]["Content-Type"] == "application/json"


EXAMPLE_ERRORS = [
    ({}, "When method is classify, key 'examples' is expected and was not found"),
    ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
    ({"examples": []}, "'examples' value is an empty array"),
    ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
    ({"examples": [{"x": [1, 2.0]}]}, "Unexpected element type in feature: x expecting type: int64"),
    ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
    ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
    ({"examples": [{"x": {"a": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
    ({"examples": [{"x": 2**63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
]


@pytest.mark.parametrize(("body", "message"), EXAMPLE_ERRORS)
@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_bad_examples_are_refused_in_words(http_client: Any, verb: str, body: dict[str, Any], message: str) -> None:
    status, text = error(http_client.predict(HALF, {**body, "signature_name": "regress_x_to_y"}, verb))
    assert (status, text[-len(message) :]) == (400, message)


def test_signatures_that_cannot_classify_or_regress(http_client: Any) -> None:
    body = {"examples": [{"x": 1.0}], "signature_name": "regress_x_to_y"}
    assert "'classes' or 'scores'" in error(http_client.predict(HALF, body, "classify"))[1]
    body["signature_name"] = "classify_x_to_y"
    assert "Expected one output tensor 'outputs'" in error(http_client.predict(HALF, body, "regress"))[1]
    body["signature_name"] = "wide_regress"
    assert error(http_client.predict(HALF, body, "regress"))[1].startswith(
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"
    )
    assert "input" in error(http_client.predict(HALF, {"examples": [{"x": 1.0}]}, "classify"))[1]


ROUND_TRIPS: list[tuple[str, Any]] = [
    ("float32", [0.1, -3.5e-30, 1e30]),
    ("float64", [0.1, 1e300]),
    ("int8", [-128, 127]),
    ("int16", [-32768]),
    ("int32", [2**31 - 1]),
    ("int64", [-(2**63), 2**63 - 1]),
    ("uint8", [0, 255]),
    ("uint32", [2**32 - 1]),
    ("uint64", [2**64 - 1]),
    ("bool", [[True, False]]),
    ("string", ["ä\n", ""]),
    ("float32", 1.5),
    ("string", "scalar"),
    ("int32", [[[1], [2]], [[3], [4]]]),
]


@pytest.mark.parametrize(("signature", "values"), ROUND_TRIPS)
def test_every_type_comes_back_as_it_went(http_client: Any, signature: str, values: Any) -> None:
    body = {"signature_name": signature, "inputs": values}
    assert http_client.predict(TYPES, body) == (200, {"outputs": values})


REFUSED = [
    ("int32", [1.0], 400, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
    ("int32", [2**31], 400, "is not of expected type: int32"),
    ("int64", [2**63], 400, "is not of expected type: int64"),
    ("uint32", [-1], 400, "is not of expected type: uint32"),
    ("uint64", [-1], 400, "is not of expected type: uint64"),
    ("int8", [300], 400, "is not of expected type: int8"),
    ("bool", [1], 400, "JSON Value: 1 Type: Number is not of expected type: bool"),
    ("string", [1], 400, "JSON Value: 1 Type: Number is not of expected type: string"),
    ("string", [{"b64": 1}], 400, "not formatted correctly for base64 data"),
    ("string", [{"b64": "!"}], 400, "Unable to base64 decode"),
    ("float16", [1.0], 501, "Conversion of JSON Value: 1.0 to type: half"),
    ("complex64", [1.0], 501, "to type: complex64"),
]


@pytest.mark.parametrize(("signature", "values", "status", "message"), REFUSED)
def test_values_of_another_type_are_refused(
    http_client: Any, signature: str, values: Any, status: int, message: str
) -> None:
    answer = error(http_client.predict(TYPES, {"signature_name": signature, "inputs": values}))
    assert answer[0] == status
    assert message in answer[1]


def test_ten_levels_of_nesting_are_a_tensor(http_client: Any) -> None:
    nested: Any = 1.5
    for _ in range(10):
        nested = [nested]
    body = {"signature_name": "float32", "instances": nested}
    assert http_client.predict(TYPES, body) == (200, {"predictions": nested})
    body = {"signature_name": "float32", "inputs": nested}
    assert http_client.predict(TYPES, body) == (200, {"outputs": nested})


def test_the_content_type_of_a_request_does_not_matter(http_client: Any) -> None:
    path = f"/v1/models/{HALF}:predict"
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "no type"):
        answer = http_client("POST", path, {"instances": [1.0]}, {"Content-Type": content_type})
        assert answer[:2] == (200, {"predictions": [3.5]})
    protobuf = http_client("POST", path, b"\n\x0f\n\rhalf_plus_two", {"Content-Type": "application/x-protobuf"})
    assert error(protobuf[:2]) == (400, "JSON Parse error: Invalid value. at offset: 1")


def test_numbers_out_of_the_range_of_a_float_become_infinite(http_client: Any) -> None:
    status, body = http_client.predict(TYPES, {"signature_name": "float32", "inputs": [1e300, -1e300, 1e-300]})
    assert (status, body) == (200, {"outputs": [math.inf, -math.inf, 0.0]})


def test_nan_and_infinities_go_in_and_out_as_bare_words(http_client: Any) -> None:
    body = b'{"signature_name": "float32", "instances": [NaN, Infinity, -Infinity, 0.1]} trailing bytes'
    status, answer = http_client.predict(TYPES, body)
    assert status == 200
    assert math.isnan(answer["predictions"][0])
    assert answer["predictions"][1:] == [math.inf, -math.inf, 0.1]
    body = b'{"signature_name": "float32", "instances": [Inf, -Inf, -NaN]}'
    status, answer = http_client.predict(TYPES, body)
    assert (status, answer["predictions"][:2]) == (200, [math.inf, -math.inf])
    text = b'{"signature_name": "string", "instances": ["Inf -NaN", "\\"Inf"], "unused": Inf}'
    assert http_client.predict(TYPES, text) == (200, {"predictions": ["Inf -NaN", '"Inf']})


def test_names_that_end_in_bytes_are_base64(http_client: Any) -> None:
    raw = b"\xff\x00text"
    body = {"signature_name": "as_bytes", "instances": [{"b64": base64.b64encode(raw).decode()}]}
    expected = {"raw_bytes": {"b64": base64.b64encode(raw).decode()}, "size": len(raw)}
    assert http_client.predict(TYPES, body) == (200, {"predictions": [expected]})


def test_row_format_needs_equal_rows(http_client: Any) -> None:
    total = {"signature_name": "total", "instances": [[1, 2]]}
    assert error(http_client.predict(TYPES, total)) == (400, "Tensor name: total has no shape information ")
    odd = {"signature_name": "odd", "instances": [1.0]}
    assert error(http_client.predict(TYPES, odd))[1] == "Tensor name: b has inconsistent batch size: 2 expecting: 1"
    half = {"signature_name": "float32", "inputs": []}
    assert http_client.predict(TYPES, half) == (200, {"outputs": []})


def test_what_tensorflow_says_comes_through(http_client: Any) -> None:
    regress = {"signature_name": "regress_x_to_y", "examples": [{"x2": 1.0}]}
    status, text = error(http_client.predict(HALF, regress, "regress"))
    assert status == 400
    assert "x (data type: float) is required but could not be found" in text
    no_example = {"signature_name": "regress_x_to_y", "instances": ["no example"]}
    status, text = error(http_client.predict(HALF, no_example))
    assert (status, text.partition("\n")[0]) == (400, "Could not parse example input, value: 'no example'")


def test_status_lists_versions_newest_first(http_client: Any) -> None:
    status, body, headers = http_client("GET", f"/v1/models/{HALF}")
    ok = {"error_code": "OK", "error_message": ""}
    versions = [{"version": number, "state": "AVAILABLE", "status": ok} for number in ("2", "1")]
    assert (status, body) == (200, {"model_version_status": versions})
    assert headers["Content-Type"] == "application/json"
    assert http_client("GET", f"/v1/models/{HALF}/versions/1")[1] == {"model_version_status": versions[1:]}
    # TensorFlow Serving does not look at the label of a status request.
    assert http_client("GET", f"/v1/models/{HALF}/labels/stable")[1] == body


def test_metadata_has_the_signatures(http_client: Any) -> None:
    status, body, _ = http_client("GET", f"/v1/models/{HALF}/versions/1/metadata")
    assert status == 200
    assert body["model_spec"] == {"name": HALF, "signature_name": "", "version": "1"}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"] == {
        "x": {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": "plain:0",
        }
    }
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["defaults"] == {}
    types = http_client("GET", f"/v1/models/{TYPES}/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert "__saved_model_init_op" in types


def test_status_is_laid_out_as_protobuf_prints_it(server: Any) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest}/v1/models/{HALF}/versions/1") as answer:
        text = answer.read().decode()
    assert text == (
        '{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "AVAILABLE",\n   "status": {\n'
        '    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )


def test_requests_before_requests_of_browsers(http_client: Any) -> None:
    path = f"/v1/models/{HALF}:predict"
    status, _, headers = http_client("OPTIONS", path, None, {"Origin": "https://example.org"})
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, None)
    assert http_client("OPTIONS", "/elsewhere", None, {"Origin": "https://example.org"})[0] == 404
    assert http_client("HEAD", f"/v1/models/{HALF}")[:2] == (400, b"")


def test_other_paths_are_not_json(http_client: Any) -> None:
    status, body, headers = http_client("GET", "/nothing")
    assert (status, headers["Content-Type"]) == (404, "text/html")
    assert b"404 Not Found" in body
    assert http_client("GET", "/monitoring/wrong")[:2] == (
        400,
        b"Unexpected path: /monitoring/wrong. Should be /monitoring/prometheus/metrics",
    )


def test_gzip_bodies_are_inflated(http_client: Any) -> None:
    content = gzip.compress(json.dumps({"instances": [1.0]}).encode())
    path = f"/v1/models/{HALF}:predict"
    assert http_client("POST", path, content, {"Content-Encoding": "gzip"})[:2] == (200, {"predictions": [3.5]})
    assert http_client("POST", path, b"no gzip", {"Content-Encoding": "gzip"})[0] == 400
    assert http_client("POST", path, content[:-4], {"Content-Encoding": "gzip"})[0] == 400
    assert http_client("POST", path, content, {"Content-Encoding": "br"})[0] == 415


def test_dumps_in_messages_are_short(http_client: Any) -> None:
    text = error(http_client.predict(HALF, {"instances": ["x" * 5000]}))[1]
    assert len(text) < 450


def test_a_slow_model_runs_into_its_time(http_client: Any) -> None:
    body = {"signature_name": "slow", "instances": [2_000_000_000]}
    status, text = error(http_client.predict(TYPES, body))
    assert status == 504
    assert text


def test_pages_beyond_tensorflow_serving(http_client: Any) -> None:
    assert http_client("GET", "/healthz")[:2] == (200, {"status": "alive"})
    assert http_client("GET", "/readyz")[:2] == (200, {"status": "ready"})
    models = {model["name"]: model for model in http_client("GET", "/v1/models")[1]["models"]}
    assert models[HALF] == {"name": HALF, "versions": ["2", "1"], "labels": {"stable": 1, "canary": 2}}


def test_a_request_id_is_returned(http_client: Any) -> None:
    assert http_client("GET", "/healthz", None, {"X-Request-Id": "mine"})[2]["X-Request-Id"] == "mine"
    assert http_client("GET", "/healthz")[2]["X-Request-Id"]


def test_metrics_have_tensorflow_servings_names(http_client: Any) -> None:
    http_client.predict(HALF, {"instances": [1.0]})
    http_client.predict("a-name-from-the-network", {"instances": [1.0]})
    status, page, headers = http_client("GET", "/monitoring/prometheus/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain")
    text = page.decode()
    for series in (
        ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}',
        ':tensorflow:serving:request_count{model_name="_unknown",status="NOT_FOUND"}',
        ':tensorflow:serving:request_latency_bucket{model_name="half_plus_two",API="predict",entrypoint="REST",le="10"}',
        ':tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="Predict",runtime="TF1"}',
        ':tensorflow:serving:request_example_count_total{model="half_plus_two"}',
        ":tensorflow:cc:saved_model:load_attempt_count{model_path=",
        ":tensorflow:core:graph_runs{}",
        "tamiz_requests_total{",
        "process_resident_memory_bytes",
    ):
        assert series in text
    assert "a-name-from-the-network" not in text
