"""Bodies of HTTP: errors as JSON, and what gzip holds. No TensorFlow here."""

from __future__ import annotations

import zlib

from tf_serving.server.extensions import HttpResponse
from tf_serving.server.json_text import error_body


def json_error(status: int, message: str, *headers: tuple[str, str]) -> HttpResponse:
    """Return an answer that is not OK."""
    return HttpResponse(status, error_body(message), headers=headers)


def too_large(limit: int) -> HttpResponse:
    """Return the answer to a body of more bytes than the limit."""
    return json_error(413, f"Body is larger than {limit} bytes")


def decompressed(body: bytes, encoding: str, *, limit: int) -> bytes | HttpResponse:
    """Return the content of a body, or the answer that refuses it.

    Args:
        body: As it came.
        encoding: What ``Content-Encoding`` says of it.
        limit: Most bytes of the content.
    """
    if encoding.strip().lower() in ("identity", ""):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        return json_error(415, f"Content-Encoding {encoding[:40]!r} is not supported; use gzip or none")
    inflater = zlib.decompressobj(31)
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error:
        return json_error(400, "Failed to uncompress the gzip body")
    if len(content) > limit:
        return json_error(413, f"Decompressed body is larger than {limit} bytes")
    if not inflater.eof:
        return json_error(400, "Failed to uncompress the gzip body")
    return content
