"""The seam: what can stand around "resolved request -> answer". No TensorFlow here.

Order for every prediction, REST or gRPC::

    Gate.admit          before the body is parsed: keys, rate limits           (all gates, in order)
    Router.choose       only where the request names neither version nor label (first router that decides)
    (inputs become numpy arrays, the version is held)
    Hook.before         may answer at once: a cache, a table of precomputed answers (first hook that answers)
    (the model runs)
    Hook.after          sees request, answer or error, and seconds: cache fill, log, shadow (all hooks, in order)

``before`` and ``after`` run in the thread that serves the request, possibly the event loop: microseconds only, no
blocking; hand work to a thread of your own through a bounded queue. What they raise, other than ``ServingError`` from
``before``, is logged and never reaches the client. ``after`` does not run for requests that failed before a version
was found.

``Route`` handlers are plain blocking functions; they run in the REST worker threads, never on the event loop.
``BodyFormat`` decoders turn a body of another content type into inputs; the answer is then as for ``instances``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from tf_serving.server.status import ServingError

if TYPE_CHECKING:
    from numpy.typing import NDArray  # the command line is read without NumPy, which would start threads

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
"""Tensors by alias: numbers, bool, or object arrays of bytes."""


@dataclass(slots=True)
class Call:
    """One prediction, resolved: which model, version and signature, with which inputs.

    Attributes:
        model: Name of a model that is configured.
        version: The version that answers.
        signature: Resolved name of the signature.
        method: "predict", "classify", "regress" or "multi_inference".
        protocol: "REST" or "gRPC".
        inputs: Tensors by alias. Classify and regress have one, of serialized tf.Example. Never change them.
        outputs: Aliases asked for; empty for all.
        headers: HTTP headers or gRPC metadata, names in lower case.
        request_id: From ``x-request-id`` or made here.
        row_format: Whether a row of the answer stands for a row of the request.
        loading: Which loading of the version answers: another one where its files were replaced.
        notes: Free for hooks, from ``before`` to ``after`` (a cache key, a start time).
    """

    model: str
    version: int
    signature: str
    method: str
    protocol: str
    inputs: Arrays
    outputs: tuple[str, ...]
    headers: Mapping[str, str]
    request_id: str
    row_format: bool = True
    loading: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """Lets a request in or refuses it."""

    def admit(self, headers: Mapping[str, str], *, path: str, peer: str) -> None:
        """Raise ServingError (UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED) to refuse.

        Args:
            headers: Names in lower case.
            path: URL path or full gRPC method name.
            peer: Address of the client.
        """


class Router(Protocol):
    """Chooses among the available versions of a model."""

    def choose(self, model: str, available: Sequence[int], headers: Mapping[str, str]) -> int | None:
        """Return a version among those available, or None to leave the choice.

        Args:
            model: Name of a configured model.
            available: At least one version, highest first.
            headers: Names in lower case.
        """


class Hook(Protocol):
    """Sees every prediction before and after the model runs."""

    def before(self, call: Call) -> Arrays | None:
        """Return the outputs by alias to answer without the model, or None."""

    def after(self, call: Call, outputs: Arrays | None, *, error: ServingError | None, seconds: float) -> None:
        """See the answer (or the error) and how long the model took, in seconds."""


class HttpRequest(NamedTuple):  # one is made for every request: a fourth of the time of a frozen dataclass
    """A whole HTTP request.

    Attributes:
        method: In capitals.
        path: Without query, not decoded.
        query: Text behind "?", or "".
        headers: Names in lower case.
        body: Decompressed.
        peer: Address of the client.
        request_id: From ``x-request-id`` or made here.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    request_id: str


class HttpResponse(NamedTuple):
    """A whole HTTP answer.

    Attributes:
        status: HTTP status code.
        body: Content.
        content_type: Of the body.
        headers: Further headers.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SignatureView:
    """What an extension may know of a signature.

    Attributes:
        name: Name of the signature.
        method_name: Such as "tensorflow/serving/predict".
        inputs: numpy dtype name ("string" for text) and shape (None where free; None for unknown rank) by alias.
        outputs: Likewise.
    """

    name: str
    method_name: str
    inputs: Mapping[str, tuple[str, tuple[int | None, ...] | None]]
    outputs: Mapping[str, tuple[str, tuple[int | None, ...] | None]]


class ModelsView(Protocol):
    """What routes and hooks may ask of the running server (``app.Server.models`` is one)."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the configured models."""

    def available(self, model: str) -> tuple[int, ...]:
        """Return the available versions, highest first; empty for unknown models."""

    def labels(self, model: str) -> Mapping[str, int]:
        """Return the version of each label."""

    def directory(self, model: str, version: int) -> str:
        """Return the directory of an available version; raises ServingError NOT_FOUND."""

    def signatures(self, model: str, version: int) -> Mapping[str, SignatureView]:
        """Return the signatures of an available version; raises ServingError NOT_FOUND."""

    def predict(self, model: str, version: int, *, signature: str, inputs: Arrays) -> Arrays:
        """Answer outside any request (shadow traffic, a page's try-out): no hooks, no request metrics."""


RouteHandler = Callable[[HttpRequest, Mapping[str, str], ModelsView], HttpResponse]
"""Takes the request, the named groups of the path, and the models."""


@dataclass(frozen=True, slots=True)
class Route:
    """A further REST path; tried in order, after TensorFlow Serving's own paths that are not errors.

    Attributes:
        method: "GET" or "POST".
        pattern: Regular expression that the whole path matches; named groups reach the handler.
        handler: Blocking function.
        open: Whether the gates are not asked.
    """

    method: str
    pattern: str
    handler: RouteHandler
    open: bool = False


BodyFormat = Callable[[bytes, SignatureView], Arrays]
"""Decodes a body for ``:predict`` into inputs of the signature; ServingError for what is not right in it."""


class Background(Protocol):
    """Something with threads or files of its own (a request log): started after the models, closed while draining."""

    def start(self, models: ModelsView) -> None:
        """Begin."""

    def close(self) -> None:
        """Flush and end; called once, after the last request."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """Everything beyond TensorFlow Serving that this server does.

    Attributes:
        gates: Asked before the body is parsed.
        routers: Asked where a request names no version.
        hooks: Around the model.
        routes: Further REST paths.
        body_formats: Decoders by content type, lower case without parameters, such as "text/csv".
        background: Started and closed with the server.
    """

    gates: tuple[Gate, ...] = ()
    routers: tuple[Router, ...] = ()
    hooks: tuple[Hook, ...] = ()
    routes: tuple[Route, ...] = ()
    body_formats: Mapping[str, BodyFormat] = field(default_factory=dict)
    background: tuple[Background, ...] = ()
