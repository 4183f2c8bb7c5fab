"""Answers that were given before: a bounded cache, least recently used first out. No TensorFlow here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b
from time import monotonic
from typing import Any, final

from numpy.typing import NDArray

from tf_serving.server.extensions import Arrays, Call
from tf_serving.server.status import ConfigurationError, ServingError

MAX_REQUEST_BYTES = 262_144
"""Larger requests are not looked up: hashing them would cost the event loop more than it saves."""
_ENTRY_BYTES = 512
_NOTE = "beyond.cache"


@final
class ResponseCache:
    """Remembers the answers of versions to equal inputs.

    Args:
        megabytes: Of answers.
        seconds: For which an answer is good.
    """

    def __init__(self, megabytes: float, *, seconds: float = 300.0) -> None:
        if megabytes <= 0 or seconds <= 0:
            raise ConfigurationError(f"--cache_mb is {megabytes:g} for {seconds:g} s: expected both above zero")
        self._limit = int(megabytes * (1 << 20))
        self._seconds = seconds
        self._entries: OrderedDict[bytes, tuple[float, int, Arrays]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    @property
    def size(self) -> int:
        """Bytes of all answers."""
        return self._size

    def before(self, call: Call) -> Arrays | None:
        """Return the answer that was given to the same inputs."""
        key = _key(call)
        if key is None:
            return None
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry[0] > monotonic():
                self._entries.move_to_end(key)
                self.hits += 1
                return entry[2]
            self.misses += 1
        call.notes[_NOTE] = key
        return None

    def after(self, call: Call, outputs: Arrays | None, *, error: ServingError | None, seconds: float) -> None:
        """Remember an answer that the model gave."""
        del seconds
        key = call.notes.get(_NOTE)
        if key is None or outputs is None or error is not None:
            return
        size = _ENTRY_BYTES + sum(_bytes_of(array) for array in outputs.values())
        if size > self._limit // 4:
            return  # one answer must not throw out all others
        with self._lock:
            self._remove(key)
            self._entries[key] = (monotonic() + self._seconds, size, outputs)
            self._size += size
            while self._size > self._limit:
                self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry[1]


def _key(call: Call) -> bytes | None:
    digest = blake2b(digest_size=20)
    head = (call.model, call.version, call.loading, call.signature, call.method, sorted(call.outputs))
    digest.update(repr(head).encode())
    total = 0
    for name, array in sorted(call.inputs.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        total += _bytes_of(array)
        if total > MAX_REQUEST_BYTES:
            return None
        if array.dtype != object:
            digest.update(array.tobytes())
            continue
        for value in array.reshape(-1):
            # Its length first: b"ab", b"c" is not b"a", b"bc".
            content = value if isinstance(value, bytes) else str(value).encode()
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
    return digest.digest()


def _bytes_of(array: NDArray[Any]) -> int:
    texts = array.reshape(-1) if array.dtype == object else ()
    return array.nbytes + sum(len(text) for text in texts)
