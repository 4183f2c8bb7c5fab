"""TensorFlow Serving's gRPC services: PredictionService, ModelService, grpc.health.v1 (imports their protos)."""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, final

import grpc
from grpc_health.v1 import health, health_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tf_serving.server import grpc_health, grpc_loop, messages
from tf_serving.server.access_log import log_answer
from tf_serving.server.config_files import ModelConfig, TlsFiles, model_configs
from tf_serving.server.grpc_calls import MALFORMED, GrpcCall, Malformed, Reply, Rpc, Transport
from tf_serving.server.grpc_library import LibraryTransport
from tf_serving.server.inference import Inference, RequestContext
from tf_serving.server.logs import LOGGER
from tf_serving.server.predict_calls import PredictCall, PredictReader, Spec, spec_of
from tf_serving.server.served_version import ServedVersion
from tf_serving.server.settings import ServerSettings
from tf_serving.server.status import Code, ConfigurationError, ServingError, invalid

MAX_MESSAGE = 1024
"""Longest error message, in characters."""
KEEPALIVE_MS = 60_000
HEALTH_SERVICES = ("", "ModelService", "PredictionService")
_PREDICTION = {
    "Classify": ("classify", classification_pb2.ClassificationRequest),
    "Regress": ("regress", regression_pb2.RegressionRequest),
    "MultiInference": ("multi_inference", inference_pb2.MultiInferenceRequest),
}
_PREDICTION_SERVICE = "/tensorflow.serving.PredictionService"
_MODEL_SERVICE = "/tensorflow.serving.ModelService"
Headers = dict[str, str]
Method = Callable[[Any, GrpcCall, Headers], Any]
"""A message of the method, the call and its headers to the answering message, or to its bytes."""
_NAME_OF = {code.value[0]: code.name for code in grpc.StatusCode}
_IDS = itertools.count(1)


@final
class GrpcServer:
    """Answers gRPC requests.

    Args:
        inference: Runs models.
        settings: Of the server.
        reload: Serves other models; for HandleReloadConfigRequest.
        in_loop: Whether the loop of ``grpc_loop.py`` takes the calls, else the library's server; None for what there
            is.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        settings: ServerSettings,
        reload: Callable[[tuple[ModelConfig, ...]], list[str]],
        in_loop: bool | None = None,
    ) -> None:
        self._inference = inference
        self._store = inference.store
        self._settings = settings
        self._reload = reload
        extensions = settings.extensions
        self._gates = extensions.gates
        # Most servers have nothing that looks at headers.
        self._reads_headers = bool(extensions.gates or extensions.routers or extensions.hooks or settings.access_log)
        self._health = health.HealthServicer()
        self._transport = self._make_transport(in_loop=grpc_loop.is_available() if in_loop is None else in_loop)
        self.set_ready(False)

    def _make_transport(self, *, in_loop: bool) -> Transport:
        settings = self._settings
        limit = settings.limits.body_bytes
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", 2**31 - 1 if settings.strict_compat else limit),
            ("grpc.max_send_message_length", 2**31 - 1),
            ("grpc.max_metadata_size", settings.limits.header_bytes),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            # Half-open connections end: one that never says hello, and one whose other side is gone.
            ("grpc.server_handshake_timeout_ms", int(settings.limits.header_seconds * 1000)),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            *_channel_arguments(settings.grpc_channel_arguments),
        ]
        num_threads = settings.grpc_max_threads
        max_calls = None if settings.strict_compat else settings.limits.queue
        tells_health = settings.enable_grpc_healthcheck_service
        if not in_loop:
            return LibraryTransport(
                self._methods(),
                watched=self._health if tells_health else None,
                options=options,
                num_threads=num_threads,
                max_calls=max_calls,
            )
        methods = self._methods()
        if tells_health:
            methods[f"{grpc_health.SERVICE}/Check"] = grpc_health.check_method(self._health)
        return grpc_loop.LoopTransport(
            methods,
            watch=(f"{grpc_health.SERVICE}/Watch", self._health.Watch) if tells_health else None,
            options=options,
            num_threads=num_threads,
            max_calls=max_calls,
            message_seconds=settings.limits.body_seconds,
        )

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
                self._transport.listen(address, credentials)
            except RuntimeError as error:
                raise ConfigurationError(f"Cannot listen for gRPC on {address}: {error}") from error
        self._transport.start()

    def set_ready(self, ready: bool) -> None:
        """Tell health checks."""
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in HEALTH_SERVICES:
            self._health.set(service, state)

    def stop(self, *, timeout: float) -> None:
        """Take no more requests, let running ones end, for so many seconds."""
        self.set_ready(False)
        self._transport.stop(timeout=timeout)

    def _methods(self) -> dict[str, Rpc]:
        methods: dict[str, tuple[Any, Method]] = {
            f"{_PREDICTION_SERVICE}/GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                self._metadata,
            ),
            f"{_MODEL_SERVICE}/GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, self._status),
            f"{_MODEL_SERVICE}/HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                self._reload_config,
            ),
        }
        found = {path: self._rpc(kind.FromString, method, path) for path, (kind, method) in methods.items()}
        for name, (method_name, kind) in _PREDICTION.items():
            path = f"{_PREDICTION_SERVICE}/{name}"
            infer = partial(self._infer, method_name)
            found[path] = self._rpc(kind.FromString, infer, path, is_quick=partial(self._is_quick, method_name))
        path, predict = f"{_PREDICTION_SERVICE}/Predict", partial(self._infer, "predict")
        found[path] = self._rpc(PredictReader().read, predict, path, is_quick=self._is_quick_call)
        return found

    def _rpc(
        self,
        parse: Callable[[bytes], Any],
        method: Method,
        path: str,
        *,
        is_quick: Callable[[Any], bool] = lambda request: request is MALFORMED,
    ) -> Rpc:
        finish = partial(self._logged if self._settings.access_log else self._finish, method, path)
        return Rpc(parse, finish, is_quick=is_quick)

    def _finish(self, method: Method, path: str, request: Any, call: GrpcCall) -> Reply:
        try:
            if request is MALFORMED:
                raise invalid("The request is no message of this method")
            headers = self._headers(call, path) if self._reads_headers else {}
            answer = method(request, call, headers)
            return 0, b"", answer if type(answer) is bytes else answer.SerializeToString()
        except ServingError as error:
            code, text = int(error.code), error.message
        except Exception:
            LOGGER.exception("A gRPC request failed")
            code, text = int(Code.INTERNAL), "Internal error"
        text = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "...TRUNCATED"
        return code, text.encode(errors="replace"), b""

    def _logged(self, method: Method, path: str, request: Any, call: GrpcCall) -> Reply:
        given = next((value for key, value in call.metadata() if key == "x-request-id"), None)
        request_id = given if isinstance(given, str) and given else _new_id()
        call.trailing = (("x-request-id", request_id),)

        def with_id(request: Any, call: GrpcCall, headers: Headers) -> Any:
            return method(request, call, headers | {"x-request-id": request_id})

        reply = self._finish(with_id, path, request, call)
        log_answer(
            "gRPC",
            path.removeprefix("/"),
            _NAME_OF[reply[0]],
            started=call.started,
            request_id=request_id,
            peer=call.peer(),
        )
        return reply

    def _headers(self, call: GrpcCall, path: str) -> Headers:
        headers = {key: value for key, value in call.metadata() if isinstance(value, str)}
        for gate in self._gates:
            gate.admit(headers, path=path, peer=call.peer())
        return headers

    def _is_quick(self, method: str, request: Any) -> bool:
        """Return whether the model has proven so short that no other thread is worth it."""
        if request is MALFORMED:
            return True
        spec = request.tasks[0].model_spec if method == "multi_inference" and request.tasks else None
        spec = spec if spec is not None else getattr(request, "model_spec", None)
        return spec is None or self._is_quick_model(spec.name)

    def _is_quick_call(self, request: PredictCall | Malformed) -> bool:
        return isinstance(request, Malformed) or request.spec is None or self._is_quick_model(request.spec.name)

    def _is_quick_model(self, name: str) -> bool:
        model = self._store.served().get(name)
        latest = model.latest if model is not None else None
        return latest is None or bool(latest.model.is_quick)

    def _infer(self, method: str, request: Any, call: GrpcCall, headers: Headers) -> Any:
        left = call.time_remaining()
        context = RequestContext(
            method,
            "gRPC",
            headers=headers,
            request_id=headers.get("x-request-id") or (_new_id() if self._reads_headers else ""),
            timeout=left if left < 1e6 else 0.0,
        )
        code, name, number = Code.OK, "", ""
        is_predict = method == "predict"
        try:
            spec = request.spec if is_predict else _spec(request, method)
            if spec is None:
                raise invalid("Missing ModelSpec")
            name = spec.name
            version = self._acquire(spec, headers)
            number = version.version_text
            try:
                target = self._target(version, context)
                return messages.predict(request, target) if is_predict else messages.answer(method, request, target)
            finally:
                version.release()
        except ServingError as error:
            code = error.code
            raise
        except Exception:
            code = Code.INTERNAL
            raise
        finally:
            self._inference.count(context, name, number, code, perf_counter() - call.started)

    def _acquire(self, spec: Spec, headers: Headers) -> ServedVersion:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        return self._inference.acquire(spec.name, version=spec.version, label=spec.label, headers=headers)

    def _target(self, version: ServedVersion, context: RequestContext) -> messages.Target:
        settings = self._settings
        return messages.Target(
            version.name,
            version.number,
            version.model,
            partial(self._inference.run, version, context=context),
            strict_method=settings.enable_signature_method_name_check,
            as_content=settings.enable_serialization_as_tensor_content,
            max_rows=settings.limits.batch_rows,
        )

    def _metadata(self, request: Any, _: GrpcCall, headers: Headers) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        messages.check_metadata_fields(request.metadata_field)
        version = self._acquire(spec_of(request.model_spec), headers)
        try:
            return messages.model_metadata(request, name=version.name, number=version.number, model=version.model)
        finally:
            version.release()

    def _status(self, request: Any, _: GrpcCall, __: Headers) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        number = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._store.status(spec.name, number):
            told = response.model_version_status.add(version=status.version, state=int(status.state))
            told.status.error_code = int(status.code)
            told.status.error_message = status.message
        return response

    def _reload_config(self, request: Any, call: GrpcCall, headers: Headers) -> Any:
        self._check_admin(headers or self._headers(call, ""))
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
        return response

    def _check_admin(self, headers: Headers) -> None:
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


def _spec(request: Any, method: str) -> Spec | None:
    if method == "multi_inference":
        messages.check_tasks(request.tasks)
        return spec_of(request.tasks[0].model_spec)
    return spec_of(request.model_spec) if request.HasField("model_spec") else None


def _credentials(tls: TlsFiles | None) -> Any:
    if tls is None:
        return None
    return grpc.ssl_server_credentials(
        [(tls.server_key, tls.server_cert)],
        root_certificates=tls.custom_ca or None,
        require_client_auth=tls.client_verify,
    )
