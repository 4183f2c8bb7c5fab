"""Everything on at once, over HTTP and gRPC, and the page in a real browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tf_serving.client import (
    AccessDeniedError,
    Client,
    ClientOptions,
    InvalidRequestError,
    ModelNotFoundError,
)
from tf_serving.load_test.bench import BenchSettings, run_bench

KEY = "open sesame"
OPTIONS = ClientOptions(api_key=KEY)
HEADERS = {"x-api-key": KEY}
MODEL = "/v1/models/penguins"


@pytest.fixture(params=["REST", "gRPC"])
def client(request: pytest.FixtureRequest, beyond: Any) -> Any:
    with Client(beyond.address if request.param == "REST" else beyond.grpc_address, options=OPTIONS) as connected:
        yield connected


def test_the_client_gets_the_answers_of_the_model(client: Client, beyond: Any) -> None:
    raw = beyond.model.raw
    expected = beyond.model.expected(raw)
    outputs = client.predict("penguins", raw, version=1)
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-6)
    assert outputs["label"].tolist() == [label.decode() for label in expected["label"]]
    assert outputs["probabilities"].dtype == np.float32
    same = client.predict("penguins", raw, label="stable")
    np.testing.assert_array_equal(same["probabilities"], outputs["probabilities"])
    newest = client.predict("penguins", raw, version=2)
    np.testing.assert_allclose(newest["probabilities"], expected["probabilities"] ** 2, atol=1e-6)


def test_frames_and_rows_are_answered_alike(client: Client, beyond: Any) -> None:
    raw = {name: values[:5] for name, values in beyond.model.raw.items()}
    frame = pd.DataFrame({**raw, "island": [text.decode() or None for text in raw["island"]]}, index=list("abcde"))
    answers = client.predict("penguins", frame, version=1)
    assert list(answers.index) == list("abcde")
    assert sorted(answers.columns) == ["label", *(f"probabilities[{number}]" for number in range(3))]
    rows = [
        {name: None if value != value else value for name, value in row.items()} for row in frame.to_dict("records")
    ]
    outputs = client.predict("penguins", rows, version=1)
    assert outputs["label"].tolist() == answers["label"].tolist()


def test_errors_come_with_their_types(client: Client) -> None:
    row = [{"island": "Dream", "bill length": 1.0, "body_mass": 2}]
    with pytest.raises(ModelNotFoundError, match="Servable not found for request: Specific\\(penguins, 9\\)"):
        client.predict("penguins", row, version=9)
    with pytest.raises(ModelNotFoundError, match="Servable not found for request: Latest\\(pinguins\\)"):
        client.predict("pinguins", row)
    with pytest.raises(InvalidRequestError, match="Unrecognized servable version label: canary"):
        client.predict("penguins", row, label="canary")
    with pytest.raises(InvalidRequestError, match=r"'bill length' is absent. Did you mean 'bill_length'"):
        client.predict("penguins", [{"island": "Dream", "bill_length": 1.0, "body_mass": 2}])


def test_states_and_signatures_are_read(client: Client) -> None:
    assert [(state.version, state.state, state.error) for state in client.status("penguins")] == [
        (2, "AVAILABLE", ""), (1, "AVAILABLE", ""),
    ]  # fmt: skip
    signatures = client.signatures("penguins")
    assert {"serving_default", "classify"} <= set(signatures)
    assert {name: tensor.dtype for name, tensor in signatures["serving_default"].inputs.items()} == {
        "island": "DT_STRING", "bill length": "DT_FLOAT", "body_mass": "DT_FLOAT",
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
@pytest.mark.parametrize(("key", "message"), [("", "Missing API key"), ("wrong", "Unknown API key")])
def test_nobody_gets_in_without_the_key(beyond: Any, protocol: str, key: str, message: str) -> None:
    address = beyond.address if protocol == "REST" else beyond.grpc_address
    with (
        Client(address, options=ClientOptions(api_key=key)) as connected,
        pytest.raises(AccessDeniedError, match=message),
    ):
        connected.predict("penguins", [{}])


def test_health_needs_no_key_and_pages_do(beyond: Any) -> None:
    http = beyond.running.http
    assert http("GET", "/healthz")[0] == http("GET", "/readyz")[0] == 200
    for path in (MODEL, f"{MODEL}/schema", "/openapi.json", "/v1/shadow"):
        assert http("GET", path)[0] == 401, path
        assert http("GET", path, headers=HEADERS)[0] == 200, path


def row_of(beyond: Any, number: int = 0) -> dict[str, Any]:
    found = {name: values[number] for name, values in beyond.model.raw.items()}
    return {name: value.decode() if isinstance(value, bytes) else float(value) for name, value in found.items()}


def test_users_stay_on_their_version(beyond: Any) -> None:
    body = {"instances": [{"island": "Dream", "bill length": 1.0, "body_mass": 2}]}
    found: dict[str, set[str]] = {}
    for user in range(12):
        for _ in range(3):
            headers = {**HEADERS, "x-session-id": f"user {user}"}
            status, answer, _ = beyond.running.http("POST", f"{MODEL}:predict", body, headers)
            assert status == 200
            found.setdefault(f"user {user}", set()).add(json.dumps(answer["predictions"][0]["probabilities"]))
    assert all(len(answers) == 1 for answers in found.values())
    assert len(set.union(*found.values())) == 2


def test_the_shadow_notes_how_versions_differ(beyond: Any) -> None:
    body = {"instances": [{"island": "Dream", "bill length": 7.0, "body_mass": 3}]}
    assert beyond.running.http("POST", f"{MODEL}/versions/1:predict", body, HEADERS)[0] == 200
    end = time.monotonic() + 10
    while time.monotonic() < end:
        counts = beyond.running.http("GET", "/v1/shadow", headers=HEADERS)[1]["shadow"].get("penguins", {})
        if counts.get("differed"):
            break
        time.sleep(0.05)
    assert counts["differed"] >= 1
    assert counts["failed"] == 0
    assert 0 < counts["largest_difference"] < 1


def test_requests_are_logged_without_what_is_left_out(beyond: Any) -> None:
    """The log is written when the server drains, or after a minute: here the writer is asked to hurry."""
    log = next(one for one in beyond.running.server.settings.extensions.background if hasattr(one, "written"))
    with Client(beyond.address, options=ClientOptions(api_key=KEY, headers={"x-request-id": "to be found"})) as client:
        client.predict("penguins", {"island": ["Torgersen"], "bill length": [12.5], "body_mass": [3]}, version=1)
    while not log._queue.is_empty:
        time.sleep(0.01)
    time.sleep(0.1)
    log._flush()
    frame = pd.concat([pq.read_table(path).to_pandas() for path in beyond.log.glob("*.parquet")])
    row = frame[frame["request_id"] == "to be found"].iloc[0]
    assert (row["model"], row["version"], row["input.bill length"]) == ("penguins", 1, 12.5)
    assert "input.island" not in frame
    assert len(row["output.probabilities"]) == 3


def test_tables_are_answered(beyond: Any) -> None:
    http, raw = beyond.running.http, beyond.model.raw
    frame = pd.DataFrame({name: values[:3] for name, values in raw.items()})
    frame["island"] = frame["island"].map(bytes.decode)
    expected = beyond.model.expected({name: values[:3] for name, values in raw.items()})
    headers = {**HEADERS, "content-type": "text/csv; charset=utf-8"}
    status, answer, _ = http("POST", f"{MODEL}/versions/1:predict", frame.to_csv(index=False).encode(), headers)
    assert status == 200
    found = [row["probabilities"] for row in answer["predictions"]]
    np.testing.assert_allclose(found, expected["probabilities"], atol=1e-6)
    status, answer, _ = http("POST", f"{MODEL}/versions/1:predict", b"island\nDream\n", headers)
    assert (status, answer["error"][:37]) == (400, "The data has no column 'bill length'.")
    headers["content-type"] = "application/vnd.apache.parquet"
    status, answer, _ = http("POST", f"{MODEL}/versions/1:predict", frame.to_parquet(), headers)
    assert status == 200
    assert [row["probabilities"] for row in answer["predictions"]] == found


# Schema, OpenAPI and the page.


def test_the_schema_says_what_is_known(beyond: Any) -> None:
    schema = beyond.running.http("GET", f"{MODEL}/schema", headers=HEADERS)[1]
    assert (schema["version"], schema["task"], schema["target"]) == ("2", "multiclass", "target")
    assert schema["classes"] == ["Adelie", "Chinstrap", "Gentoo"]
    inputs = {entry["name"]: entry for entry in schema["inputs"]}
    assert list(inputs) == ["island", "bill length", "body_mass"]
    assert inputs["island"]["values"] == ["Biscoe", "Dream", "<b>Torgersen</b>"]
    assert (inputs["body_mass"]["min"], inputs["body_mass"]["integer"]) == (0.0, True)
    assert {entry["name"] for entry in schema["outputs"]} == {"probabilities", "label"}
    status, answer, _ = beyond.running.http("GET", "/v1/models/none/schema", headers=HEADERS)
    assert (status, answer["error"]) == (404, "Servable not found for request: Latest(none)")


def test_the_openapi_document_is_valid_and_fits_the_requests(beyond: Any) -> None:
    document = beyond.running.http("GET", "/openapi.json", headers=HEADERS)[1]
    validators = pytest.importorskip("openapi_spec_validator")
    validators.validate(document)
    jsonschema = pytest.importorskip("jsonschema")
    operation = document["paths"][f"{MODEL}:predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    fits = jsonschema.Draft202012Validator({**schema, "components": document["components"]}).is_valid
    row = {"island": "Dream", "bill length": 1.5, "body_mass": 2}
    assert fits({"instances": [row]})
    assert fits({"instances": [{**row, "island": {"b64": "AA=="}}]})
    for wrong in ({**row, "further": 1}, {"island": "Dream"}, {**row, "body_mass": "2"}, [1, 2]):
        assert not fits({"instances": [wrong]})
    assert not fits({"instances": []})


def test_a_model_without_extra_files_is_described_by_its_signature(
    run_server: Callable[..., Any], models: Path
) -> None:
    from tf_serving.server.beyond.options import BeyondOptions, build_extensions

    running = run_server(
        model_name="half", model_base_path=str(models / "half_plus_two"), port=0,
        extensions=build_extensions(BeyondOptions(pages=True)),
    )  # fmt: skip
    schema = running.http("GET", "/v1/models/half/schema")[1]
    assert schema["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None]}]
    assert "/v1/models/half:predict" in running.http("GET", "/openapi.json")[1]["paths"]
    assert b'href="/try/half"' in running.http("GET", "/try")[1]


def test_pages_allow_only_their_own_script(beyond: Any) -> None:
    status, page, headers = beyond.running.http("GET", "/try/penguins")
    policy = headers["Content-Security-Policy"]
    assert status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert len(nonce) > 20
    assert page.count(f'nonce="{nonce}"'.encode()) == 2
    assert nonce not in beyond.running.http("GET", "/try/penguins")[2]["Content-Security-Policy"]
    status, answer, _ = beyond.running.http("GET", "/try/%3Cscript%3E")
    assert (status, answer["error"]) == (404, "There is no model '<script>' to try")


def fill(browser: Any, values: dict[str, str]) -> None:
    for name, value in values.items():
        script = f"document.querySelector('input[name={json.dumps(name)}]').value = {json.dumps(value)}"
        browser.run(script)
    browser.run("document.getElementById('ask').click()")


def test_a_person_tries_the_model_in_a_browser(browser: Any, beyond: Any) -> None:
    browser.open(f"http://{beyond.address}/try/penguins")
    # First the key, as the schema asks for one.
    browser.wait_for("document.getElementById('key') !== null")
    browser.run("document.getElementById('key').value = 'wrong'")
    browser.run("document.querySelector('#row button').click()")
    browser.wait_for("document.body.innerText.includes('Unknown API key')")
    browser.wait_for("document.getElementById('key') !== null && document.getElementById('key').value === ''")
    browser.run(f"document.getElementById('key').value = {json.dumps(KEY)}")
    browser.run("document.querySelector('#row button').click()")
    browser.wait_for("document.body.dataset.ready === 'true'")
    assert browser.run("[...document.querySelectorAll('#row label')].map(label => label.textContent)") == [
        "island", "bill length", "body_mass",
    ]  # fmt: skip
    # What a table holds is text, never HTML.
    assert browser.run("document.querySelectorAll('#row b').length") == 0
    assert "<b>Torgersen</b>" in browser.run("[...document.querySelectorAll('option')].map(o => o.value)")
    fill(browser, {"island": "Dream", "bill length": "1.5", "body_mass": ""})
    label = browser.wait_for("document.querySelector('td[data-output=label]')?.textContent")
    with Client(beyond.address, options=OPTIONS) as client:
        row = {"island": ["Dream"], "bill length": [1.5], "body_mass": [None]}
        answers = [client.predict("penguins", row, version=version) for version in (1, 2)]
    assert label in {answer["label"][0] for answer in answers}
    shares = browser.run("[...document.querySelectorAll('td[data-class] meter')].map(meter => meter.value)")
    assert any(np.allclose(shares, answer["probabilities"][0], atol=1e-5) for answer in answers)
    # A mistake is told where the person looks.
    fill(browser, {"bill length": "long"})
    browser.wait_for("document.querySelector('#answer .wrong')?.textContent === 'bill length is no number: long'")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes encoded images by the kind in its schema, and answers how many bytes they have."""
    import tensorflow as tf

    class Length(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="photo")])  # type: ignore[untyped-decorator]
        def answer(self, photo: Any) -> Any:
            return {"length": tf.strings.length(photo)}

    base = tmp_path_factory.mktemp("pictures")
    module = Length()
    tf.saved_model.save(module, str(base / "1"), signatures=module.answer)
    (base / "1" / "assets.extra").mkdir()
    schema = {"features": [{"name": "photo", "kind": "image"}]}
    (base / "1" / "assets.extra" / "schema.json").write_text(json.dumps(schema))
    return base


def test_a_person_uploads_an_image(
    browser: Any, pictures: Path, run_server: Callable[..., Any], tmp_path: Path
) -> None:
    from tf_serving.server.beyond.options import BeyondOptions, build_extensions

    extensions = build_extensions(BeyondOptions(pages=True))
    running = run_server(model_name="pictures", model_base_path=str(pictures), port=0, extensions=extensions)
    (tmp_path / "photo.png").write_bytes(bytes(range(256)) * 400)
    browser.open(f"http://127.0.0.1:{running.rest}/try/pictures")
    browser.wait_for("document.body.dataset.ready === 'true' && document.getElementById('ask') !== null")
    browser.run("document.getElementById('ask').click()")
    browser.wait_for("document.querySelector('#answer .wrong')?.textContent === 'Choose a file for photo.'")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    field = browser.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "photo.png")])
    browser.run("document.getElementById('ask').click()")
    assert browser.wait_for("document.querySelector('td[data-output=length]')?.textContent") == "102400"


# Load.


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_load_is_put_on_the_server(beyond: Any, protocol: str) -> None:
    target = beyond.address if protocol == "REST" else beyond.grpc_address
    settings = BenchSettings(model="penguins", rates=(20, 40), p95_ms=600_000, seconds=0.7, rows=3, options=OPTIONS)
    report = run_bench(target, settings)
    assert [result.rate for result in report.results] == [20, 40]
    assert all(result.answered == result.sent > 0 for result in report.results)
    assert report.best is not None


def test_a_request_of_ones_own_is_sent(beyond: Any, tmp_path: Path) -> None:
    from tf_serving.errors import ExportError

    path = tmp_path / "request.json"
    path.write_text(json.dumps({"instances": [row_of(beyond, 3)]}).replace("NaN", "1.0"))
    settings = BenchSettings(model="penguins", rates=(20,), seconds=0.3, request=path, options=OPTIONS)
    assert run_bench(beyond.address, settings).results[0].answered > 0
    with pytest.raises(ExportError, match="A request file is JSON, which is for REST; leave it out for gRPC"):
        run_bench(beyond.grpc_address, settings)
    path.write_text("{")
    with pytest.raises(ExportError, match=r"Cannot send .*request.json"):
        run_bench(beyond.address, settings)
    path.write_text('{"instances": []}')
    with pytest.raises(ExportError, match="answered no request: INVALID_ARGUMENT; try one by hand first"):
        run_bench(beyond.address, settings)
