"""API keys and rate limits. No TensorFlow here."""

from __future__ import annotations

import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import monotonic
from typing import final
from urllib.parse import unquote

from tf_serving.server.status import Code, ConfigurationError, ServingError

KEY_HEADER = "x-api-key"
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the one unseen for longest is forgotten first."""

_LINE = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s+([0-9a-fA-F]{64})", re.ASCII)


def key_of(headers: Mapping[str, str]) -> str:
    """Return the key that a request shows; "" for none.

    Args:
        headers: Names in lower case. ``x-api-key``, or ``authorization: Bearer KEY``.
    """
    if KEY_HEADER in headers:
        return headers[KEY_HEADER]
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def read_keys(path: Path) -> dict[str, str]:
    """Return the hash of each key by the name of its owner.

    Args:
        path: Lines of NAME and the SHA-256 of a key in hexadecimal digits; ``#`` begins a comment.

    Raises:
        ConfigurationError: The file cannot be read, a line is not of this form, or a name is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read the API keys in {path}: {error}") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            # The line itself is not shown: it may hold a key that someone forgot to hash.
            raise ConfigurationError(f"{path}, line {number}: expected NAME and the SHA-256 of a key (64 hex digits)")
        if match[1] in keys:
            raise ConfigurationError(f"{path}, line {number}: {match[1]!r} is there twice")
        keys[match[1]] = match[2].lower()
    if not keys:
        raise ConfigurationError(f"{path} holds no API key")
    return keys


@final
class ApiKeys:
    """Lets in who shows a key.

    Args:
        hashes: Hash of each key by the name of its owner.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = [value.encode() for value in hashes.values()]

    def admit(self, headers: Mapping[str, str], *, path: str, peer: str) -> None:
        """Refuse a request without a key, or with a wrong one."""
        del path, peer
        key = key_of(headers)
        if not key:
            raise ServingError(Code.UNAUTHENTICATED, f"Missing API key: send it as {KEY_HEADER}")
        shown = sha256(key.encode("utf-8", "surrogateescape")).hexdigest().encode()
        # Every hash is compared, each in constant time: the time tells nothing.
        if not sum([hmac.compare_digest(shown, known) for known in self._hashes]):
            raise ServingError(Code.PERMISSION_DENIED, "Unknown API key")


@final
class RateLimit:
    """At most so many requests per second and client, with bursts (token bucket).

    A client is its key where one was shown and checked before, else its address.

    Args:
        per_second: Requests.
        burst: Requests at once; twice those of a second if 0.
        by_key: Whether clients are told apart by their keys.
    """

    def __init__(self, per_second: float, *, burst: float = 0.0, by_key: bool = False) -> None:
        if not 0 < per_second < float("inf"):
            raise ConfigurationError(f"--rate_limit is {per_second:g}: expected requests per second above zero")
        self._rate = per_second
        self._burst = max(burst or 2 * per_second, 1.0)
        self._by_key = by_key
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, headers: Mapping[str, str], *, path: str, peer: str) -> None:
        """Refuse a request that comes too soon."""
        del path
        # The key itself is not kept in memory for longer than the request.
        client = sha256(key_of(headers).encode("utf-8", "surrogateescape")).hexdigest() if self._by_key else _host(peer)
        now = monotonic()
        with self._lock:
            tokens, last = self._buckets.get(client, (self._burst, now))
            tokens = min(self._burst, tokens + (now - last) * self._rate)
            allowed = tokens >= 1.0
            self._buckets[client] = (tokens - 1.0 if allowed else tokens, now)
            self._buckets.move_to_end(client)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        if not allowed:
            wait = ceil((1.0 - tokens) / self._rate)
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"More than {self._rate:g} requests per second; try again in {wait} s",
                retry_after=wait,
            )


def _host(peer: str) -> str:
    # "127.0.0.1", "127.0.0.1:5000" and "ipv4:127.0.0.1:5000" are one client whatever the port, and so are "::1",
    # "ipv6:[::1]:5000" and "ipv6:%5B::1%5D:5000". The last group of "2001:db8::7" is no port.
    address = unquote(peer).removeprefix("ipv4:").removeprefix("ipv6:")
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, separator, port = address.rpartition(":")
    return host if separator and ":" not in host and port.isdigit() else address
