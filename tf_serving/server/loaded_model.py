"""A SavedModel in memory (imports TensorFlow): signatures called without Python's share of ``Session.run``.

The V1 loader and a session, as TensorFlow Serving has them: some valid SavedModels fail in ``tf.saved_model.load``.
``Session._make_callable_from_options`` is not public, but has been what Keras' and TPU code builds on since TensorFlow
1.5; a call costs a tenth of ``loaded.signatures[...]``. Where a TensorFlow lacks it, ``Session.run`` answers instead.

A graph whose calls are short runs in the calling thread (``inter_op_thread_pool = -1``): no hand-over to another
thread. Such a run cannot be interrupted, so it is only for signatures that have proven short; all others run in the
pool, with the request's deadline.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2

from tf_serving.server import tensor_types as types
from tf_serving.server.signatures import SERVING_DEFAULT, ServedSignature
from tf_serving.server.status import Code, ServingError, invalid
from tf_serving.server.tensor_protos import from_proto

Arrays = dict[str, NDArray[Any]]
_Key = tuple[str, tuple[str, ...], int, bool]
"""Of a prepared run: signature, outputs, deadline in milliseconds, whether it is in the calling thread."""

SHORT_SECONDS = 0.002
"""Signatures whose calls take less run in the calling thread."""
LONG_SECONDS = 0.02
"""One call this long sends a signature back to the pool."""
PROVING_CALLS = 8
MAX_CALLABLES = 64
"""Different (outputs, deadline) of one model that are kept ready."""
TIMEOUTS_MS = (64, 512, 4_096, 32_768, 262_144)
"""Deadlines that runs have, as each is another prepared run: TensorFlow optimises the graph anew for it."""


@final
class LoadedModel:
    """One version of a model.

    Args:
        session: With the graph loaded and initialised.
        meta_graph: What was loaded.
        usual_timeout_ms: A deadline that many requests will have; 0 for none.
    """

    def __init__(self, session: Any, meta_graph: Any, *, usual_timeout_ms: int = 0) -> None:
        self._session: Any = session
        self.meta_graph = meta_graph
        self.signatures = {name: _signature(name, proto) for name, proto in meta_graph.signature_def.items()}
        self._callables: dict[_Key, _Callable] = {}
        self._pace: dict[str, _Pace] = {name: _Pace() for name in self.signatures}
        self._lock = threading.Lock()
        self._usual_timeout_ms = usual_timeout_ms
        self._timeouts_ms = sorted({*TIMEOUTS_MS, usual_timeout_ms} - {0})
        self.is_quick = False  # whether the last call was of a signature that has proven short

    @classmethod
    def load(
        cls, directory: Path, *, tags: Sequence[str] = ("serve",), config: Any = None, usual_timeout_ms: int = 0
    ) -> LoadedModel:
        """Load a SavedModel.

        Args:
            directory: With ``saved_model.pb``.
            tags: Of the graph in it.
            config: ConfigProto of the session.
            usual_timeout_ms: A deadline that many requests will have; 0 for none.

        Raises:
            ServingError: It cannot be loaded; the message is TensorFlow's.
        """
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default(), _quiet():
                meta_graph = tf.compat.v1.saved_model.loader.load(session, list(tags), str(directory))
        except Exception as error:
            session.close()
            raise _load_error(error, directory) from error
        return cls(session, meta_graph, usual_timeout_ms=usual_timeout_ms)

    def signature(self, name: str) -> ServedSignature | None:
        """Return a signature; "" is the default one."""
        return self.signatures.get(name or SERVING_DEFAULT)

    def is_short(self, signature: str) -> bool:
        """Return whether the signature's calls have proven short."""
        return self._pace[signature].is_short

    def run(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout: float,
    ) -> Arrays:
        """Return outputs by alias.

        Args:
            signature: One of this model.
            inputs: Exactly the signature's inputs.
            outputs: Aliases among the signature's outputs.
            timeout: In seconds; 0 for none.

        Raises:
            ServingError: What TensorFlow said, with its code.
        """
        pace = self._pace[signature.name]
        return self._run(signature, inputs, outputs, timeout=timeout, short=pace.is_short, pace=pace)

    def make_ready(
        self, signature: ServedSignature, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]
    ) -> None:
        """Prepare every run that requests like this one will take, and learn how long it takes.

        Preparing one takes from milliseconds to seconds; here no request waits for it.

        Raises:
            ServingError: What TensorFlow said, with its code.
        """
        pace = self._pace[signature.name]
        for timeout in {0.0, self._usual_timeout_ms / 1000}:
            self._run(signature, inputs, outputs, timeout=timeout, short=False, pace=_Pace())
        for _ in range(PROVING_CALLS):
            self._run(signature, inputs, outputs, timeout=0.0, short=False, pace=pace)
        if pace.is_short:
            self._run(signature, inputs, outputs, timeout=0.0, short=True, pace=_Pace())
        self.is_quick = pace.is_short

    def _run(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout: float,
        short: bool,
        pace: _Pace,
    ) -> Arrays:
        own_clock = short and pace.own_clock
        clock = thread_time if own_clock else perf_counter
        try:
            key = (signature.name, outputs, 0 if short else self._timeout_ms(timeout), short)
            call = self._callables.get(key) or self._callable(key, signature)
            if call.only_feed is not None:
                started = clock()
                values = call.run(inputs[call.only_feed])
            else:
                feeds = [inputs[alias] for alias in call.feeds]
                for place in call.texts:
                    feeds[place] = _objects(feeds[place])
                started = clock()
                values = call.run(*feeds)
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), str(error.message)) from None
        except (RuntimeError, ValueError, TypeError) as error:
            raise invalid(str(error)) from None
        pace.add(clock() - started, own_clock=own_clock)
        self.is_quick = pace.is_short
        if call.only_output is not None:
            return {call.only_output: values[0]}
        return {alias: values[place] for alias, place in call.places}

    def close(self) -> None:
        """Give the memory back."""
        self._callables.clear()
        session, self._session = self._session, None
        if session is not None:
            session.close()
            session._graph = None
        del session
        gc.collect()

    def _timeout_ms(self, seconds: float) -> int:
        """Return the next longer deadline; a client that gave up earlier does not wait for the run."""
        place = bisect_left(self._timeouts_ms, int(seconds * 1000))
        return 0 if seconds <= 0 or place == len(self._timeouts_ms) else self._timeouts_ms[place]

    def _callable(self, key: _Key, signature: ServedSignature) -> _Callable:
        with self._lock:
            if len(self._callables) >= MAX_CALLABLES:
                self._callables.clear()
            _, outputs, timeout, short = key
            found = self._callables[key] = _Callable(self._session, signature, outputs, timeout, short)
        return found


@final
class _Callable:
    """A run of the session with fixed feeds and fetches."""

    def __init__(
        self, session: Any, signature: ServedSignature, outputs: tuple[str, ...], timeout: int, short: bool
    ) -> None:
        options = config_pb2.CallableOptions()
        self.feeds = tuple(signature.inputs)
        self.texts = [place for place, spec in enumerate(signature.inputs.values()) if spec.dtype == types.STRING]
        self.only_feed = self.feeds[0] if len(self.feeds) == 1 and not self.texts else None
        feeds = [spec.tensor for spec in signature.inputs.values()]
        # Two aliases may name one tensor, which must not be fetched twice.
        fetches = list(dict.fromkeys(signature.outputs[alias].tensor for alias in outputs))
        options.feed.extend(feeds)
        options.fetch.extend(fetches)
        options.run_options.inter_op_thread_pool = -1 if short else 0
        options.run_options.timeout_in_ms = timeout
        self.only_output = outputs[0] if len(outputs) == 1 else None
        self.places = [(alias, fetches.index(signature.outputs[alias].tensor)) for alias in outputs]
        self.run: Callable[..., list[Any]]
        make = getattr(session, "_make_callable_from_options", None)
        if make is not None and feeds:
            self.run = make(options)
        else:
            run_options = options.run_options
            self.run = lambda *values: session.run(fetches, dict(zip(feeds, values, strict=True)), options=run_options)


class _Pace:
    """How long calls of a signature take.

    The best of a few calls counts, not the mean: on a busy machine a call waits for the processor much longer than it
    computes. Where the best of short calls seems long, too, the thread's own clock decides; it is a system call, which
    is why it is not asked every time.
    """

    __slots__ = ("_best", "_calls", "is_short", "own_clock")

    def __init__(self) -> None:
        self._calls = 0
        self._best = LONG_SECONDS
        self.is_short = False
        self.own_clock = False  # whether the next short calls are timed by the thread's own clock

    def add(self, seconds: float, *, own_clock: bool) -> None:
        # Unlocked: a lost update puts a decision off by a call.
        if seconds > LONG_SECONDS:
            self._decide(is_short=False, own_clock=own_clock)
            return
        if seconds < self._best:
            self._best = seconds
        self._calls += 1
        if self._calls >= PROVING_CALLS:
            self._decide(is_short=self._best < SHORT_SECONDS, own_clock=own_clock)

    def _decide(self, *, is_short: bool, own_clock: bool) -> None:
        self._calls, self._best = 0, LONG_SECONDS
        self.own_clock = self.is_short and not is_short and not own_clock
        if not self.own_clock:
            self.is_short = is_short


def _objects(array: NDArray[Any]) -> NDArray[Any]:
    """Return text of fixed width as objects."""
    return array.astype(object) if array.dtype.kind in "SU" else array


def _signature(name: str, proto: Any) -> ServedSignature:
    defaults = {alias: from_proto(value, alias) for alias, value in getattr(proto, "defaults", {}).items()}
    return ServedSignature.from_proto(name, proto, defaults)


def _load_error(error: Exception, directory: Path) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return ServingError(Code(error.error_code), str(error.message))
    if isinstance(error, OSError):
        message = f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}"
        return ServingError(Code.NOT_FOUND, message)
    return ServingError(Code.INVALID_ARGUMENT, f"Cannot load {directory}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the loader's deprecation note, which is for writers of models."""
    import logging as python_logging

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(python_logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
