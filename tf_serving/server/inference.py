"""A resolved request to an answer: extensions around batching around the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, final

from tf_serving.server.extensions import Arrays, Call, Extensions, SignatureView
from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import APIS, Metrics
from tf_serving.server.model_store import ModelStore
from tf_serving.server.prediction_log import LoggedCall, PredictionLogs
from tf_serving.server.served_version import ServedVersion
from tf_serving.server.signatures import ServedSignature, check_inputs, num_rows
from tf_serving.server.status import Code, ServingError, invalid


@final
class Inference:
    """Runs models for requests.

    Args:
        store: With the versions.
        extensions: Around the model.
        metrics: To count.
        max_rows: Most rows of one request.
        logs: Of models whose configuration asks for one.
    """

    def __init__(
        self, store: ModelStore, *, extensions: Extensions, metrics: Metrics, max_rows: int, logs: PredictionLogs
    ) -> None:
        self.store = store
        self.metrics = metrics
        self.logs = logs
        self._extensions = extensions
        self._max_rows = max_rows
        self._has_hooks = bool(extensions.hooks)

    def acquire(
        self, name: str, *, version: int | None, label: str | None, headers: Mapping[str, str]
    ) -> ServedVersion:
        """Return the version that is to answer, held.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT.
        """
        if not self._extensions.routers or version is not None or label is not None:
            return self.store.acquire(name, version=version, label=label)
        return self.store.acquire(name, choose=self._router(headers))

    def _router(self, headers: Mapping[str, str]) -> Callable[[str, Sequence[int]], int | None]:
        def choose(model: str, available: Sequence[int]) -> int | None:
            for router in self._extensions.routers:
                version = router.choose(model, available, headers)
                if version is not None:
                    return version
            return None

        return choose

    def run(
        self,
        version: ServedVersion,
        signature: ServedSignature,
        inputs: Arrays,
        outputs: tuple[str, ...],
        *,
        context: RequestContext,
    ) -> Arrays:
        """Return outputs by alias.

        Args:
            version: Held by the caller.
            signature: Of its model.
            inputs: As the request has them; defaults are filled in here.
            outputs: Aliases.
            context: Of the request.

        Raises:
            ServingError: What the model, the queue or a hook said.
        """
        inputs = check_inputs(signature, inputs)
        rows = num_rows(inputs)
        if rows is not None and rows > self._max_rows:
            raise invalid(f"Request has {rows} rows, more than the {self._max_rows} that are allowed")
        if context.in_model is not None or context.rows is not None:
            self._count_last(version.name, version.version_text, context)
        context.rows = rows
        if self._has_hooks:
            call = _call(version, signature, inputs, outputs, context)
            answer = self._around(call, lambda: self._run_model(version, signature, inputs, outputs, context))
        else:
            answer = self._run_model(version, signature, inputs, outputs, context)
        sampling = self.logs.samplings.get(version.name)
        if sampling is not None:
            self.logs.take(
                LoggedCall(context.method, version.name, version.number, signature, inputs, answer, sampling)
            )
        return answer

    def _run_model(
        self,
        version: ServedVersion,
        signature: ServedSignature,
        inputs: Arrays,
        outputs: tuple[str, ...],
        context: RequestContext,
    ) -> Arrays:
        runner = version.batcher or version.model
        started = perf_counter()
        answer: Arrays = runner.run(signature, inputs, outputs, timeout=context.remaining())
        context.in_model = perf_counter() - started
        return answer

    def _around(self, call: Call, run: Callable[[], Arrays]) -> Arrays:
        """Return what a hook or the model answers; every hook sees it."""
        started = perf_counter()
        answer: Arrays | None = None
        error: ServingError | None = None
        try:
            answer = self._before(call)
            if answer is None:
                answer = run()
        except ServingError as raised:
            error = raised
            raise
        finally:
            self._after(call, answer, error, perf_counter() - started)
        return answer

    def _before(self, call: Call) -> Arrays | None:
        for hook in self._extensions.hooks:
            try:
                answer = hook.before(call)
            except ServingError:
                raise
            except Exception:
                LOGGER.exception("A hook failed before the model", extra={"request_id": call.request_id})
                continue
            if answer is not None:
                return answer
        return None

    def _after(self, call: Call, answer: Arrays | None, error: ServingError | None, seconds: float) -> None:
        for hook in self._extensions.hooks:
            try:
                hook.after(call, answer, error=error, seconds=seconds)
            except Exception:
                LOGGER.exception("A hook failed after the model", extra={"request_id": call.request_id})

    def count(self, context: RequestContext, model: str, version: str, code: Code, seconds: float) -> None:
        """Count an answer.

        Args:
            context: Of the request.
            model: Name in the request; counted as "_unknown" where no such model is configured.
            version: That answered, or "".
            code: Of the answer.
            seconds: From the whole request to the whole answer.
        """
        metrics = self.metrics
        if code is Code.OK and context.in_model is not None:
            tally = metrics.tally(model, version, context.method, context.protocol)
            tally.add(seconds=seconds, in_model=context.in_model, rows=context.rows)
            return
        known = model if self.store.is_known(model) else "_unknown"
        self._count_last(known, version, context)
        metrics.request_count.add(known, code.name)
        if code is Code.OK:  # a hook answered, not the model
            api = APIS[context.method] if context.protocol == "gRPC" else context.method
            entrypoint = "GRPC" if context.protocol == "gRPC" else "REST"
            metrics.request_latency.observe(seconds * 1e6, known, api, entrypoint)
        metrics.requests.add(known, version, context.method, context.protocol, code.name)

    def _count_last(self, model: str, version: str, context: RequestContext) -> None:
        """Count the call of the model that is known of a request, if there is one; it may make several."""
        if context.rows is not None:
            self.metrics.read(model, context.rows)
        if context.in_model is not None:
            self.metrics.ran(model, version, context.method, context.in_model)
        context.rows = context.in_model = None


@final
class RequestContext:
    """What is known of a request beside its content.

    Args:
        method: "predict", "classify", "regress" or "multi_inference".
        protocol: "REST" or "gRPC".
        headers: Names in lower case.
        request_id: To find it in logs.
        timeout: Seconds from now; 0 for none.
    """

    __slots__ = ("_deadline", "headers", "in_model", "method", "protocol", "request_id", "row_format", "rows")

    def __init__(
        self, method: str, protocol: str, *, headers: Mapping[str, str], request_id: str, timeout: float = 0.0
    ) -> None:
        self.method = method
        self.protocol = protocol
        self.headers = headers
        self.request_id = request_id
        self.row_format = True
        self.rows: int | None = None  # of the last call of the model that is not counted yet
        self.in_model: float | None = None  # its seconds
        self._deadline = perf_counter() + timeout if timeout else 0.0

    def remaining(self) -> float:
        """Return the seconds left; 0 for no deadline.

        Raises:
            ServingError: DEADLINE_EXCEEDED where none are left.
        """
        if not self._deadline:
            return 0.0
        left = self._deadline - perf_counter()
        if left <= 0:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        return left


def _call(
    version: ServedVersion,
    signature: ServedSignature,
    inputs: Arrays,
    outputs: tuple[str, ...],
    context: RequestContext,
) -> Call:
    return Call(
        model=version.name,
        version=version.number,
        signature=signature.name,
        method=context.method,
        protocol=context.protocol,
        inputs=inputs,
        outputs=outputs,
        headers=context.headers,
        request_id=context.request_id,
        row_format=context.row_format,
        loading=version.loading,
    )


@final
class Models:
    """The view of the models that extensions have.

    Args:
        store: With the versions.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def names(self) -> tuple[str, ...]:
        """Return the names of the configured models."""
        return tuple(self._store.served())

    def available(self, model: str) -> tuple[int, ...]:
        """Return the available versions, highest first."""
        served = self._store.served().get(model)
        return tuple(served.versions) if served else ()

    def labels(self, model: str) -> Mapping[str, int]:
        """Return the version of each label."""
        served = self._store.served().get(model)
        return dict(served.labels) if served else {}

    def directory(self, model: str, version: int) -> str:
        """Return the directory of an available version."""
        held = self._store.acquire(model, version=version)
        held.release()
        return str(held.directory)

    def signatures(self, model: str, version: int) -> Mapping[str, SignatureView]:
        """Return the signatures of an available version."""
        held = self._store.acquire(model, version=version)
        try:
            return {name: signature.view() for name, signature in held.model.signatures.items()}
        finally:
            held.release()

    def predict(self, model: str, version: int, *, signature: str, inputs: Arrays) -> Arrays:
        """Answer outside any request.

        Raises:
            ServingError: NOT_FOUND, INVALID_ARGUMENT, or what the model said.
        """
        held = self._store.acquire(model, version=version)
        try:
            found: Any = held.model.signature(signature)
            if found is None:
                raise invalid(f'Serving signature name: "{signature}" not found in signature def')
            answer: Arrays = held.model.run(found, check_inputs(found, inputs), tuple(found.outputs), timeout=0.0)
            return answer
        finally:
            held.release()
