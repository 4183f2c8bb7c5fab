"""TensorFlow Serving's REST interface: paths, methods, status codes and bodies (imports its protos)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol, final
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from tf_serving.server.examples import classifications, regressions, serialized_examples
from tf_serving.server.extensions import Extensions, HttpRequest, HttpResponse
from tf_serving.server.http_bodies import json_error
from tf_serving.server.inference import Inference, Models, RequestContext
from tf_serving.server.json_answers import write_classifications, write_outputs, write_regressions
from tf_serving.server.json_predict import read_document, read_inputs, signature_name
from tf_serving.server.json_text import parse
from tf_serving.server.logs import LOGGER
from tf_serving.server.messages import example_signature
from tf_serving.server.served_version import ServedVersion
from tf_serving.server.settings import ServerSettings
from tf_serving.server.signatures import SERVING_DEFAULT, check_classify, check_regress
from tf_serving.server.status import Code, ServingError, invalid

_INFERENCE = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/([0-9]+)|/labels/([^/:]+))?(/metadata)?", re.IGNORECASE | re.ASCII
)
_NOT_FOUND = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
QUICK_BODY_BYTES = 65_536
"""Larger bodies are read in a thread, so that the event loop goes on."""


class MetricsPage(Protocol):
    """Makes the text that Prometheus reads."""

    def __call__(self, *, compatible_only: bool) -> bytes:
        """Return the page, or only what TensorFlow Serving has of it."""


class _Path:
    """What a path of an inference request says."""

    __slots__ = ("label", "method", "name", "version")

    def __init__(self, name: str, version: int | None, label: str | None, method: str) -> None:
        self.name = name
        self.version = version
        self.label = label
        self.method = method


@final
class Rest:
    """Answers HTTP requests.

    Args:
        inference: Runs models.
        settings: Of the server.
        monitoring_path: Of the metrics page, or None.
        metrics_page: Makes that page.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        settings: ServerSettings,
        monitoring_path: str | None,
        metrics_page: MetricsPage,
    ) -> None:
        self._inference = inference
        self._store = inference.store
        self._settings = settings
        self._monitoring_path = monitoring_path
        self._metrics_page = metrics_page
        self._extensions: Extensions = settings.extensions
        self._formats = settings.extensions.body_formats
        self._routes = [(route, re.compile(route.pattern)) for route in self._extensions.routes]
        self._timeout = settings.rest_api_timeout_in_ms / 1000
        self._limits = settings.limits
        self._exact = settings.strict_compat
        self._models = Models(self._store)
        self._cors = (
            (
                ("Access-Control-Allow-Origin", "*"),
                ("Access-Control-Allow-Methods", "POST, GET"),
                ("Access-Control-Allow-Headers", "Content-Type"),
            )
            if settings.rest_api_enable_cors_support
            else ()
        )
        self.is_draining = False

    def answer_quickly(self, request: HttpRequest) -> HttpResponse | None:
        """Return the answer where it takes so little time that it may be made on the event loop, else None."""
        if request.method != "POST":
            return None if self._routes else self.answer(request)
        if len(request.body) > QUICK_BODY_BYTES or (self._formats and self._has_own_format(request)):
            return None
        path = _inference_path(request.path)
        if path is None:
            return None
        if type(path) is _Path:
            model = self._store.served().get(path.name)
            # An unknown model is a quick answer, too.
            if model is not None and model.latest is not None and not model.latest.model.is_quick:
                return None
        return self.answer(request, path=path)

    def answer(self, request: HttpRequest, *, path: _Path | ServingError | None = None) -> HttpResponse:
        """Return the answer; whatever goes wrong is one, too.

        Args:
            request: Any.
            path: Of a request for an inference, where it is known already.
        """
        try:
            response = self._answer(request, path)
        except ServingError as error:
            retry = () if error.retry_after is None else (("Retry-After", str(error.retry_after)),)
            response = json_error(error.http_status, error.message, *retry)
        except Exception:
            LOGGER.exception("A request failed", extra={"request_id": request.request_id})
            response = json_error(500, "Internal error")
        if self._cors:
            return HttpResponse(response.status, response.body, response.content_type, (*response.headers, *self._cors))
        return response

    def _answer(self, request: HttpRequest, path: _Path | ServingError | None) -> HttpResponse:
        if path is None and request.method == "POST":
            path = _inference_path(request.path)
        if type(path) is _Path:
            if self._extensions.gates:
                self._admit(request)
            return self._infer(path, request)
        if isinstance(path, ServingError):
            # Another one: the one that is kept would hold on to every request that it was raised for.
            raise ServingError(path.code, path.message)
        for route, pattern in self._routes:
            match = pattern.fullmatch(request.path) if route.method == request.method else None
            if match is not None:
                if not route.open:
                    self._admit(request)
                return route.handler(request, match.groupdict(), self._models)
        if request.method in ("GET", "HEAD") and not self._settings.strict_compat:
            health = self._health(request.path)
            if health is not None:
                return health
        if request.path == self._monitoring_path and request.method == "GET":
            page = self._metrics_page(compatible_only=self._settings.strict_compat)
            return HttpResponse(200, page, "text/plain")
        if not re.match(r"/v1/.*", request.path, re.IGNORECASE):
            if self._monitoring_path and request.path.startswith("/monitoring/"):
                text = f"Unexpected path: {request.path}. Should be {self._monitoring_path}"
                return HttpResponse(400, text.encode(), "text/plain")
            return HttpResponse(404, _NOT_FOUND, "text/html")
        if request.method == "OPTIONS":
            return self._preflight(request)
        match = _STATUS.fullmatch(request.path) if request.method == "GET" else None
        if match is None:
            raise invalid(f"Malformed request: {request.method} {request.path}")
        self._admit(request)
        return self._describe(*match.groups())

    def _admit(self, request: HttpRequest) -> None:
        for gate in self._extensions.gates:
            gate.admit(request.headers, path=request.path, peer=request.peer)

    def _preflight(self, request: HttpRequest) -> HttpResponse:
        origin = request.headers.get("origin", "")
        if not origin.startswith(("http://", "https://")):
            raise invalid("Origin header is missing in CORS preflight")
        return HttpResponse(200, b"")

    def _health(self, path: str) -> HttpResponse | None:
        if path in ("/healthz", "/v1/healthz"):
            return HttpResponse(200, b'{"status":"alive"}')
        if path in ("/readyz", "/v1/readyz"):
            waiting = [name for name, model in self._store.served().items() if not model.versions]
            if self.is_draining or waiting or not self._store.served():
                reason = "draining" if self.is_draining else "waiting"
                return HttpResponse(503, json.dumps({"status": reason, "models": waiting}).encode())
            return HttpResponse(200, b'{"status":"ready"}')
        return None

    # Predictions.

    def _infer(self, path: _Path, request: HttpRequest) -> HttpResponse:
        started = perf_counter()
        inference = self._inference
        context = RequestContext(
            path.method, "REST", headers=request.headers, request_id=request.request_id, timeout=self._timeout
        )
        code, number = Code.OK, ""
        try:
            # TensorFlow Serving reads the whole body before it looks for the model.
            document, name = self._document(request, path.method)
            version = inference.acquire(path.name, version=path.version, label=path.label, headers=request.headers)
            number = version.version_text
            try:
                body = self._run(version, document, name, request, context)
            finally:
                version.release()
            return HttpResponse(200, body)
        except ServingError as error:
            code = error.code
            raise
        except Exception:
            code = Code.INTERNAL
            raise
        finally:
            inference.count(context, path.name, number, code, perf_counter() - started)

    def _document(self, request: HttpRequest, method: str) -> tuple[Any, str]:
        if self._formats and self._has_own_format(request):
            return None, ""
        read = read_document if method == "predict" else parse
        document = read(request.body, max_depth=self._limits.json_depth)
        return document, signature_name(document)

    def _has_own_format(self, request: HttpRequest) -> bool:
        return _content_type(request) in self._formats

    def _run(
        self, version: ServedVersion, document: Any, name: str, request: HttpRequest, context: RequestContext
    ) -> bytes:
        if document is None:
            return self._run_other_format(version, request, context)
        if context.method == "predict":
            signature = _predict_signature(version, name)
            inputs, context.row_format = read_inputs(
                document,
                signature.dtypes,
                body=request.body,
                max_depth=self._limits.json_depth,
                max_rows=self._limits.batch_rows,
            )
            outputs = self._inference.run(version, signature, inputs, signature.output_names, context=context)
            return write_outputs(outputs, row_format=context.row_format, exact=self._exact)
        examples = serialized_examples(document, max_rows=self._limits.batch_rows)
        signature = example_signature(version.model, name)
        strict = self._settings.enable_signature_method_name_check
        check = check_classify if context.method == "classify" else check_regress
        check(signature, strict_method=strict)
        outputs = self._inference.run(version, signature, {"inputs": examples}, signature.output_names, context=context)
        if context.method == "classify":
            return write_classifications(classifications(outputs, len(examples)), exact=self._exact)
        return write_regressions(regressions(outputs, len(examples)), exact=self._exact)

    def _run_other_format(self, version: ServedVersion, request: HttpRequest, context: RequestContext) -> bytes:
        content_type = _content_type(request)
        if context.method != "predict":
            raise invalid(f"A body of type {content_type} can only be predicted")
        signature = _predict_signature(version, "")
        inputs = self._formats[content_type](request.body, signature.view())
        outputs = self._inference.run(version, signature, inputs, signature.output_names, context=context)
        return write_outputs(outputs, row_format=True, exact=self._exact)

    # Status and metadata.

    def _describe(self, name: str | None, version: str | None, label: str | None, metadata: str | None) -> HttpResponse:
        if name is None:
            if self._settings.strict_compat or version or label or metadata:
                raise invalid("Missing model name in request.")
            return self._list()
        name = unquote(name)
        number = None if version is None else _version(version)
        if metadata:
            return self._metadata(name, number, None if label is None else unquote(label))
        statuses = [
            {
                "version": str(status.version),
                "state": status.state.name,
                "status": {"error_code": status.code.name, "error_message": status.message},
            }
            for status in self._store.status(name, number)
        ]
        return HttpResponse(200, json.dumps({"model_version_status": statuses}, indent=1).encode() + b"\n")

    def _metadata(self, name: str, number: int | None, label: str | None) -> HttpResponse:
        version = self._store.acquire(name, version=number, label=label)
        try:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in version.model.signatures.items():
                signatures.signature_def[key].CopyFrom(signature.proto)
        finally:
            version.release()
        document = {
            "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
            "metadata": {
                "signature_def": json_format.MessageToDict(
                    signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
            },
        }
        return HttpResponse(200, json.dumps(document, indent=1).encode() + b"\n")

    def _list(self) -> HttpResponse:
        models = [
            {"name": name, "versions": [str(number) for number in model.versions], "labels": dict(model.labels)}
            for name, model in self._store.served().items()
        ]
        return HttpResponse(200, json.dumps({"models": models}, indent=1).encode() + b"\n")


def _predict_signature(version: ServedVersion, name: str) -> Any:
    signature = version.model.signature(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name or SERVING_DEFAULT}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return signature


@lru_cache(maxsize=1024)
def _inference_path(path: str) -> _Path | ServingError | None:
    match = _INFERENCE.fullmatch(path)
    if match is None:
        return None
    name, version, label, method = match.groups()
    try:
        number = None if version is None else _version(version)
    except ServingError as error:
        return error
    return _Path(unquote(name), number, None if label is None else unquote(label), method.lower())


def _version(text: str) -> int:
    if len(text) > 40 or int(text) >= 1 << 63:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text)


def _content_type(request: HttpRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
