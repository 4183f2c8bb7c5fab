"""What headers say, by their bytes: clients send the same ones again and again. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, final

from tf_serving.server.extensions import HttpResponse
from tf_serving.server.http_bodies import json_error, too_large
from tf_serving.server.settings import Limits

ONLY_ONCE = frozenset({"host", "transfer-encoding"})
"""Headers of which a request may have one each."""
MAX_HEADS = 256
MAX_HEAD_BYTES = 2_048
_END = b"\r\n\r\n"
# With these, more than the body differs from request to request, or the body is not what follows.
_UNUSUAL = frozenset({"transfer-encoding", "content-encoding", "expect", "upgrade", "x-request-id"})
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {499: b"Client Closed Request"}


class Head(NamedTuple):
    """What stands before the body of a request.

    Attributes:
        method: In capitals.
        path: Without query, not decoded.
        query: Text behind "?", or "".
        headers: Names in lower case.
        body_bytes: Length of the body.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body_bytes: int


@final
class KnownHeads:
    """Heads that the parser has read, so that it need not read the same bytes again.

    Only heads of requests that came in one piece, whose connection stays open and whose body has the length they say:
    behind the same bytes, as many more bytes are the same request with another body.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, piece: bytes) -> tuple[Head, bytes] | None:
        """Return head and body of a piece that is a whole request with a known head, else None."""
        end = piece.find(_END) + len(_END)
        head = self._heads.get(piece[:end])
        return (head, piece[end:]) if head is not None and len(piece) == end + head.body_bytes else None

    def remember(self, piece: bytes, head: Head) -> None:
        """Keep the head of a piece, of which nothing but the first request is known, if it can be kept.

        Args:
            piece: As it came.
            head: Of the request at its beginning.
        """
        end = piece.find(_END) + len(_END)
        headers = head.headers
        if (
            not len(_END) < end <= MAX_HEAD_BYTES
            or len(piece) != end + head.body_bytes
            or headers.get("content-length") != str(head.body_bytes)
            or not _UNUSUAL.isdisjoint(headers)
        ):
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[piece[:end]] = head._replace(headers=MappingProxyType(dict(headers)))


def head_refusal(
    headers: Mapping[str, str], *, version: str, upgrades: bool, num_bytes: int, limits: Limits
) -> HttpResponse | None:
    """Return the answer to a request that is refused for its head; None where the body may come.

    Args:
        headers: Names in lower case.
        version: Of HTTP.
        upgrades: Whether another protocol is asked for.
        num_bytes: Of the whole head.
        limits: Of clients.
    """
    coding = headers.get("transfer-encoding")
    if upgrades:
        return json_error(400, "Malformed request: upgrades are not supported")
    if version not in ("1.0", "1.1"):
        return json_error(400, "Malformed request: HTTP 1.0 or 1.1 is spoken here")
    # Whoever stands before this server might see another end of the body in all other cases.
    if coding is not None and (coding.strip().lower() != "chunked" or version == "1.0"):
        return json_error(400, "Malformed request: Transfer-Encoding is chunked, in HTTP 1.1, or nothing")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        return too_large(limits.body_bytes)
    if num_bytes > limits.header_bytes:
        return json_error(431, f"Header is larger than {limits.header_bytes} bytes")
    return None


@lru_cache(maxsize=64)
def first_lines(status: int, content_type: str) -> bytes:
    """Return the status line and the content type of an answer."""
    reason = _REASONS.get(status, b"Unknown")
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n" % (status, reason, content_type.encode("latin-1"))
