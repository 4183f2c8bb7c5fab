"""What is remembered of headers is what the parser said, and only of requests that it holds for."""

from __future__ import annotations

import pytest

from tf_serving.server.http_heads import MAX_HEADS, Head, KnownHeads

HEADER = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"


def head(**headers: str) -> Head:
    return Head("POST", "/a", "b=c", {"host": "h", "content-length": "3"} | headers, 3)


def test_the_same_bytes_mean_the_same_with_another_body() -> None:
    known = KnownHeads()
    assert known.find(HEADER + b"abc") is None
    known.remember(HEADER + b"abc", head())
    found = known.find(HEADER + b"xyz")
    assert found is not None
    assert (found[0].method, found[0].path, found[0].query, dict(found[0].headers)) == (
        "POST", "/a", "b=c", {"host": "h", "content-length": "3"},
    )  # fmt: skip
    assert found[1] == b"xyz"


@pytest.mark.parametrize(
    "piece",
    [
        HEADER + b"ab",  # the rest comes later
        HEADER + b"abcd",  # another request follows
        HEADER.replace(b"/a", b"/b") + b"abc",
        HEADER.replace(b"Host: h", b"Host: i") + b"abc",
        HEADER,
        b"abc",
        b"\r\n\r\n",
    ],
)
def test_other_bytes_are_not_known(piece: bytes) -> None:
    known = KnownHeads()
    known.remember(HEADER + b"abc", head())
    assert known.find(piece) is None


@pytest.mark.parametrize(
    ("piece", "meaning"),
    [
        (HEADER + b"abcPOST", head()),  # the piece is not one request
        (b"", head()),  # it came in several
        (HEADER + b"abc", head(**{"content-length": "03"})),
        (HEADER + b"abc", head(**{"transfer-encoding": "chunked"})),
        (HEADER + b"abc", head(**{"content-encoding": "gzip"})),
        (HEADER + b"abc", head(expect="100-continue")),
        (HEADER + b"abc", head(**{"x-request-id": "1"})),
        (HEADER.replace(b"h\r", b"h" * 3000 + b"\r") + b"abc", head()),
    ],
)
def test_what_is_not_sure_to_mean_the_same_is_not_kept(piece: bytes, meaning: Head) -> None:
    known = KnownHeads()
    known.remember(piece, meaning)
    assert known.find(piece) is None


def test_clients_cannot_fill_the_memory() -> None:
    known = KnownHeads()
    pieces = [HEADER.replace(b"Host: h", b"Host: %d" % number) + b"abc" for number in range(2 * MAX_HEADS)]
    for piece in pieces:
        known.remember(piece, head())
    assert sum(known.find(piece) is not None for piece in pieces) <= MAX_HEADS
    assert known.find(pieces[-1]) is not None
