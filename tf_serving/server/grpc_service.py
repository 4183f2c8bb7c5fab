"""TensorFlow Serving's gRPC services: PredictionService, ModelService, grpc.health.v1 (imports their protos)."""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_serving.server import messages
from tf_serving.server.access_log import log_answer
from tf_serving.server.config_files import ModelConfig, TlsFiles, model_configs
from tf_serving.server.extensions import Arrays
from tf_serving.server.inference import Inference, RequestContext
from tf_serving.server.logs import LOGGER
from tf_serving.server.served_version import ServedVersion
from tf_serving.server.settings import ServerSettings
from tf_serving.server.signatures import ServedSignature
from tf_serving.server.status import Code, ConfigurationError, ServingError, invalid

MAX_MESSAGE = 1024
"""Longest error message, in characters."""
KEEPALIVE_MS = 60_000
HEALTH_SERVICES = ("", "ModelService", "PredictionService")
_PREDICTION = {
    "Predict": ("predict", predict_pb2.PredictRequest),
    "Classify": ("classify", classification_pb2.ClassificationRequest),
    "Regress": ("regress", regression_pb2.RegressionRequest),
    "MultiInference": ("multi_inference", inference_pb2.MultiInferenceRequest),
}
Method = Callable[[bytes, Any, dict[str, str]], bytes]
_STATUS_OF = {code.value[0]: code for code in grpc.StatusCode}
_IDS = itertools.count(1)


@final
class GrpcServer:
    """Answers gRPC requests.

    Args:
        inference: Runs models.
        settings: Of the server.
        reload: Serves other models; for HandleReloadConfigRequest.
    """

    def __init__(
        self, inference: Inference, *, settings: ServerSettings, reload: Callable[[tuple[ModelConfig, ...]], list[str]]
    ) -> None:
        self._inference = inference
        self._store = inference.store
        self._settings = settings
        self._reload = reload
        self._gates = settings.extensions.gates
        self._executor = ThreadPoolExecutor(settings.grpc_max_threads, thread_name_prefix="grpc")
        limit = settings.limits.body_bytes
        self._server = grpc.server(
            self._executor,
            options=[
                ("grpc.max_receive_message_length", 2**31 - 1 if settings.strict_compat else limit),
                ("grpc.max_send_message_length", 2**31 - 1),
                ("grpc.max_metadata_size", settings.limits.header_bytes),
                ("grpc.so_reuseport", int(settings.workers > 1)),
                # Half-open connections end: one that never says hello, and one whose other side is gone.
                ("grpc.server_handshake_timeout_ms", int(settings.limits.header_seconds * 1000)),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
                *_channel_arguments(settings.grpc_channel_arguments),
            ],
            maximum_concurrent_rpcs=None if settings.strict_compat else settings.limits.queue,
        )
        self._health = health.HealthServicer()
        self._server.add_generic_rpc_handlers((self._prediction_service(), self._model_service()))
        if settings.enable_grpc_healthcheck_service:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.set_ready(False)

    def start(self, tls: TlsFiles | None) -> None:
        """Listen and answer.

        Raises:
            ConfigurationError: The port or socket cannot be used.
        """
        settings = self._settings
        credentials = _credentials(tls)
        addresses = []
        if settings.port:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            addresses.append(f"{host}:{settings.port}")
        if settings.grpc_socket_path:
            addresses.append(f"unix:{settings.grpc_socket_path}")
        for address in addresses:
            try:
                if credentials is None:
                    self._server.add_insecure_port(address)
                else:
                    self._server.add_secure_port(address, credentials)
            except RuntimeError as error:
                raise ConfigurationError(f"Cannot listen for gRPC on {address}: {error}") from error
        self._server.start()

    def set_ready(self, ready: bool) -> None:
        """Tell health checks."""
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in HEALTH_SERVICES:
            self._health.set(service, state)

    def stop(self, *, timeout: float) -> None:
        """Take no more requests, let running ones end, for so many seconds."""
        self.set_ready(False)
        self._server.stop(timeout).wait()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _prediction_service(self) -> Any:
        service = "tensorflow.serving.PredictionService"
        handlers = {
            rpc: self._handler(self._inference_method(method, kind), f"{service}/{rpc}")
            for rpc, (method, kind) in _PREDICTION.items()
        }
        handlers["GetModelMetadata"] = self._handler(self._metadata, f"{service}/GetModelMetadata")
        return grpc.method_handlers_generic_handler(service, handlers)

    def _model_service(self) -> Any:
        service = "tensorflow.serving.ModelService"
        handlers = {
            "GetModelStatus": self._handler(self._status, f"{service}/GetModelStatus"),
            "HandleReloadConfigRequest": self._handler(self._reload_config, f"{service}/HandleReloadConfigRequest"),
        }
        return grpc.method_handlers_generic_handler(service, handlers)

    def _handler(self, method: Method, path: str) -> Any:
        """Return a handler from bytes to bytes; messages are parsed here, where a bad one has a proper answer."""
        access_log = self._settings.access_log

        def handle(content: bytes, context: Any) -> bytes:
            if access_log:
                return logged(content, context)
            return answered(content, context, {})

        def logged(content: bytes, context: Any) -> bytes:
            started = perf_counter()
            request_id = dict(context.invocation_metadata()).get("x-request-id") or _new_id()
            context.set_trailing_metadata((("x-request-id", request_id),))
            try:
                return answered(content, context, {"x-request-id": request_id})
            finally:
                code = context.code() or grpc.StatusCode.OK
                log_answer("gRPC", path, code.name, started=started, request_id=request_id, peer=context.peer())

        def answered(content: bytes, context: Any, more: dict[str, str]) -> bytes:
            try:
                return method(content, context, self._headers(context, path) | more)
            except ServingError as error:
                status, text = _STATUS_OF[int(error.code)], error.message
            except DecodeError:
                status, text = grpc.StatusCode.INVALID_ARGUMENT, "The request is no message of this method"
            except Exception:
                LOGGER.exception("A gRPC request failed")
                status, text = grpc.StatusCode.INTERNAL, "Internal error"
            context.abort(status, text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "...TRUNCATED")
            return b""  # not reached: abort raises

        return grpc.unary_unary_rpc_method_handler(handle)

    def _headers(self, context: Any, path: str) -> dict[str, str]:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        for gate in self._gates:
            gate.admit(headers, path=f"/{path}", peer=context.peer())
        return headers

    def _inference_method(self, method: str, kind: Any) -> Method:
        def infer(content: bytes, context: Any, headers: dict[str, str]) -> bytes:
            started = perf_counter()
            request = kind.FromString(content)
            left = context.time_remaining()
            request_context = RequestContext(
                method,
                "gRPC",
                headers=headers,
                request_id=headers.get("x-request-id") or _new_id(),
                timeout=left if left is not None and left < 1e6 else 0.0,
            )
            code, name, number = Code.OK, "", ""
            try:
                spec = _model_spec(request, method)
                name = spec.name
                version = self._acquire(spec, headers)
                number = version.version_text
                try:
                    response = messages.answer(method, request, self._target(version, request_context))
                finally:
                    version.release()
                return bytes(response.SerializeToString())
            except ServingError as error:
                code = error.code
                raise
            except Exception:
                code = Code.INTERNAL
                raise
            finally:
                self._inference.count(request_context, name, number, code, perf_counter() - started)

        return infer

    def _acquire(self, spec: Any, headers: dict[str, str]) -> ServedVersion:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        return self._inference.acquire(spec.name, version=version, label=label, headers=headers)

    def _target(self, version: ServedVersion, context: RequestContext) -> messages.Target:
        def run(signature: ServedSignature, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
            return self._inference.run(version, signature, inputs, outputs, context=context)

        settings = self._settings
        return messages.Target(
            version.name,
            version.number,
            version.model,
            run,
            strict_method=settings.enable_signature_method_name_check,
            as_content=settings.enable_serialization_as_tensor_content,
            max_rows=settings.limits.batch_rows,
        )

    def _metadata(self, content: bytes, _: Any, headers: dict[str, str]) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(content)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        messages.check_metadata_fields(request.metadata_field)
        version = self._acquire(request.model_spec, headers)
        try:
            response = messages.model_metadata(request, name=version.name, number=version.number, model=version.model)
            return bytes(response.SerializeToString())
        finally:
            version.release()

    def _status(self, content: bytes, _: Any, __: dict[str, str]) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest.FromString(content)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        number = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._store.status(spec.name, number):
            told = response.model_version_status.add(version=status.version, state=int(status.state))
            told.status.error_code = int(status.code)
            told.status.error_message = status.message
        return bytes(response.SerializeToString())

    def _reload_config(self, content: bytes, _: Any, headers: dict[str, str]) -> bytes:
        self._check_admin(headers)
        request = model_management_pb2.ReloadConfigRequest.FromString(content)
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        before = self._inference.metrics.totals()
        try:
            configs = model_configs(request.config)
        except ConfigurationError as error:
            raise invalid(str(error)) from error
        self._check_roots(configs)
        missing = self._reload(configs)
        if missing:
            raise ServingError(
                Code.UNKNOWN,
                f"{len(missing)} model(s) did not become available: {{{', '.join(missing)}}}",
            )
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        after = self._inference.metrics.totals()
        for name in request.metric_names:
            if name in after:
                response.metric.add(name=name, int64_value_increase=after[name] - before[name])
        return bytes(response.SerializeToString())

    def _check_admin(self, headers: dict[str, str]) -> None:
        token = self._settings.admin_token
        if not token:
            raise ServingError(
                Code.PERMISSION_DENIED,
                "HandleReloadConfigRequest is off: it lets a client choose what is loaded. Start the server with "
                "--admin_token to use it.",
            )
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise ServingError(
                Code.UNAUTHENTICATED, "HandleReloadConfigRequest needs the metadata 'authorization: Bearer TOKEN'"
            )

    def _check_roots(self, configs: tuple[ModelConfig, ...]) -> None:
        roots = [Path(root).resolve() for root in self._settings.allowed_roots]
        for config in configs:
            if roots and not any(config.base_path.resolve().is_relative_to(root) for root in roots):
                raise ServingError(
                    Code.PERMISSION_DENIED, f"base_path of model {config.name} is not below --allowed_roots"
                )


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Return ``key=value,key=value`` as options of gRPC; whole numbers are numbers."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    return [(key, int(value) if value.lstrip("-").isdigit() else value) for key, _, value in pairs]


def _new_id() -> str:
    return f"g{os.getpid():x}-{next(_IDS):x}"


def _model_spec(request: Any, method: str) -> Any:
    if method == "multi_inference":
        messages.check_tasks(request.tasks)
        return request.tasks[0].model_spec
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _credentials(tls: TlsFiles | None) -> Any:
    if tls is None:
        return None
    return grpc.ssl_server_credentials(
        [(tls.server_key, tls.server_cert)],
        root_certificates=tls.custom_ca or None,
        require_client_auth=tls.client_verify,
    )
