"""The export of a search on images behind tamiz' own server: encoded bytes over REST and over gRPC."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ports(pictures: tuple[Any, Any]) -> Iterator[tuple[int, int]]:
    """Ports for REST and gRPC of a server of the search's export."""
    from tf_serving.server.app import Server
    from tf_serving.server.settings import ServerSettings

    settings = ServerSettings(
        model_name="digits",
        model_base_path=str(pictures[0].run / "export" / "digits"),
        rest_api_port=free_port(),
        port=free_port(),
        enable_preflight=False,
    )
    server = Server(settings)
    server.start()
    yield settings.rest_api_port, settings.port
    server.stop()


@pytest.fixture(scope="module")
def files(digit_folder: Path) -> list[Path]:
    return sorted(digit_folder.rglob("*.png"))[::17]


@pytest.fixture(scope="module")
def expected(pictures: tuple[Any, Any], files: list[Path], digit_folder: Path) -> pd.DataFrame:
    """What `tamiz predict` answers for the files."""
    answers = pd.read_csv(pictures[1].run.parent / "answers.csv").set_index("image")
    return answers.loc[[file.relative_to(digit_folder).as_posix() for file in files]]


def post(port: int, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/models/digits:predict", json.dumps(body))
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_rest_takes_encoded_images_in_base64(
    ports: tuple[int, int], files: list[Path], expected: pd.DataFrame
) -> None:
    instances = [{"image": {"b64": base64.b64encode(file.read_bytes()).decode()}} for file in files]
    status, answer = post(ports[0], {"instances": instances})
    assert status == 200
    assert [row["label"] for row in answer["predictions"]] == expected["label"].astype(str).tolist()
    found = np.array([row["probabilities"] for row in answer["predictions"]])
    np.testing.assert_allclose(found, expected.filter(like="probability").to_numpy(), atol=1e-5)


def test_rest_says_what_is_wrong_with_bytes_that_are_no_image(ports: tuple[int, int]) -> None:
    status, answer = post(ports[0], {"instances": [{"image": {"b64": base64.b64encode(b"no image").decode()}}]})
    assert (status, "Unknown image file format" in answer["error"]) == (400, True)


def test_rest_takes_pixels_by_their_own_signature(ports: tuple[int, int], expected: pd.DataFrame, files: Any) -> None:
    from PIL import Image

    pixels = [np.asarray(Image.open(file).convert("L"))[..., np.newaxis].tolist() for file in files[:2]]
    body = {"signature_name": "pixels", "instances": [{"image": image} for image in pixels]}
    status, answer = post(ports[0], body)
    labels = [row["label"] for row in answer["predictions"]]
    assert (status, labels) == (200, expected["label"].astype(str)[:2].tolist())


def test_the_official_grpc_client_sends_encoded_images(
    ports: tuple[int, int], files: list[Path], expected: pd.DataFrame
) -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto([file.read_bytes() for file in files]))
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=60).outputs
        labels = [label.decode() for label in tf.make_ndarray(outputs["label"])]
        assert labels == expected["label"].astype(str).tolist()
        np.testing.assert_allclose(
            tf.make_ndarray(outputs["probabilities"]), expected.filter(like="probability").to_numpy(), atol=1e-5
        )
        request.inputs["image"].CopyFrom(tf.make_tensor_proto([b"no image"]))
        with pytest.raises(grpc.RpcError, match="Unknown image file format"):
            stub.Predict(request, timeout=60)
