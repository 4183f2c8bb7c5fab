from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ADMIN_TOKEN = "a token for tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def new_port() -> Callable[[], int]:
    return free_port


@dataclass(frozen=True)
class Http:
    """Plain HTTP to a server."""

    port: int

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, content, headers or {})
            response = connection.getresponse()
            text = response.read()
            is_json = response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(text) if is_json and text else text, response.headers
        finally:
            connection.close()

    def predict(self, model: str, body: Any, verb: str = "predict") -> tuple[int, Any]:
        return self("POST", f"/v1/models/{model}:{verb}", body)[:2]


@dataclass(frozen=True)
class Running:
    """A server in this process."""

    server: Any
    rest: int
    grpc: int

    @property
    def http(self) -> Http:
        return Http(self.rest)


@pytest.fixture(scope="session")
def run_server() -> Iterator[Callable[..., Running]]:
    """Starts servers in this process; all are stopped at the end."""
    from tf_serving.server.app import Server
    from tf_serving.server.settings import ServerSettings

    running: list[Running] = []

    def start(**values: Any) -> Running:
        ports = {"port": free_port(), "rest_api_port": free_port()}
        defaults = {"enable_preflight": False, "allow_unverified": True, "drain_seconds": 2.0, "grpc_max_threads": 4}
        settings = replace(ServerSettings(), **{**defaults, **ports, **values})
        server = Server(settings)
        try:
            server.start()
        except BaseException:
            server.stop()
            raise
        running.append(Running(server, settings.rest_api_port, settings.port))
        return running[-1]

    yield start
    for one in running:
        one.server.stop()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of models: half_plus_two (versions 1 and 2, of TensorFlow 1), types, pair, ragged."""
    base = tmp_path_factory.mktemp("models")
    for version, offset in ((1, 2.0), (2, 3.0)):
        save_half_plus(base / "half_plus_two" / str(version), offset)
    save_types(base / "types" / "1")
    save_pair(base / "pair" / "7")
    return base


@pytest.fixture(scope="session")
def save_model() -> Callable[[Path, float], None]:
    return save_half_plus


def save_half_plus(directory: Path, offset: float) -> None:
    """x / 2 + offset, for predict, classify and regress, as TensorFlow Serving's own test model has it."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        half, added = v1.get_variable("a", initializer=0.5), v1.get_variable("b", initializer=offset)
        serialized = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.io.parse_example(
            serialized,
            {"x": v1.io.FixedLenFeature([1], tf.float32), "x2": v1.io.FixedLenFeature([1], tf.float32, [0.0])},
        )
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(x * half, added, name="y")
        y3 = tf.identity(parsed["x2"] * half + 3.0, name="y3")
        plain = v1.placeholder(tf.float32, [None], name="plain")
        plain_y = plain * half + added
        labels = tf.tile(tf.constant([["yes", "no"]]), [tf.shape(x)[0], 1])
        scores = tf.concat([y, -y], axis=1)
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def

        def made(inputs: Any, outputs: dict[str, Any], method: str) -> Any:
            return signature(
                {key: info(value) for key, value in inputs.items()},
                {key: info(value) for key, value in outputs.items()},
                f"tensorflow/serving/{method}",
            )

        examples = {"inputs": serialized}
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": made({"x": plain}, {"y": plain_y}, "predict"),
                "regress_x_to_y": made(examples, {"outputs": y}, "regress"),
                "regress_x2_to_y3": made(examples, {"outputs": y3}, "regress"),
                "classify_x_to_y": made(examples, {"scores": scores, "classes": labels}, "classify"),
                "scores_only": made(examples, {"scores": scores}, "classify"),
                "wide_regress": made(examples, {"outputs": scores}, "regress"),
            },
        )
        builder.save()


def save_types(directory: Path) -> None:
    """A signature for every type, which answers what it was given."""
    import tensorflow as tf

    module = tf.Module()
    dtypes = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool")
    signatures: dict[str, Any] = {}
    for name in (*dtypes, "string", "complex64"):
        kind = tf.as_dtype(name)

        def same(values: Any) -> dict[str, Any]:
            return {"same": tf.identity(values)}

        signatures[name] = tf.function(
            same, input_signature=[tf.TensorSpec(None, kind, name="values")]
        ).get_concrete_function()

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def as_bytes(text: Any) -> dict[str, Any]:
        return {"raw_bytes": text, "size": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def total(x: Any) -> dict[str, Any]:
        return {"total": tf.reduce_sum(x), "rows": tf.reduce_sum(x, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def odd(x: Any) -> dict[str, Any]:
        return {"a": x, "b": tf.concat([x, x], axis=0)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, name="steps")])
    def slow(steps: Any) -> dict[str, Any]:
        last = tf.while_loop(lambda i, _: i < steps[0], lambda i, x: (i + 1, tf.sin(x)), (0, tf.ones((64, 64))))[1]
        return {"x": tf.reduce_sum(last) + tf.zeros_like(steps, tf.float32)}

    module.kept = signatures
    tf.saved_model.save(
        module,
        str(directory),
        signatures={**signatures, "as_bytes": as_bytes, "total": total, "odd": odd, "slow": slow},
    )


def save_pair(directory: Path) -> None:
    """Two inputs, two outputs."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(
        input_signature=[tf.TensorSpec((None, 2), tf.float32, name="a"), tf.TensorSpec((None,), tf.string, name="b")]
    )
    def pair(a: Any, b: Any) -> dict[str, Any]:
        return {"sum": tf.reduce_sum(a, axis=1), "text": tf.strings.upper(b), "twice": a * 2.0}

    tf.saved_model.save(module, str(directory), signatures=pair)


@pytest.fixture(scope="session")
def config_file(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "models.config"
    path.write_text(
        f"""
        model_config_list {{
          config {{
            name: "half_plus_two"  base_path: "{models}/half_plus_two"  model_platform: "tensorflow"
            model_version_policy {{ all {{}} }}
            version_labels {{ key: "stable" value: 1 }}
            version_labels {{ key: "canary" value: 2 }}
          }}
          config {{ name: "types" base_path: "{models}/types" model_platform: "tensorflow" }}
          config {{ name: "pair" base_path: "{models}/pair" model_platform: "tensorflow" }}
        }}
        """
    )
    return path


@pytest.fixture(scope="session")
def server(run_server: Callable[..., Running], config_file: Path) -> Running:
    """The server that most tests ask."""
    return run_server(model_config_file=str(config_file), admin_token=ADMIN_TOKEN, rest_api_timeout_in_ms=3_000)


@pytest.fixture(scope="session")
def http_client(server: Running) -> Http:
    return server.http


@pytest.fixture(scope="session")
def stubs(server: Running) -> Iterator[tuple[Any, Any]]:
    """TensorFlow Serving's official stubs: prediction and model service."""
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )
