from __future__ import annotations

import io

import pytest

from pipelines import content_hash
from pipelines.content_hash import stream_hash


def test_content_has_the_hash_of_the_published_test_vector() -> None:
    # The vector of length 0 in test_vectors.json of the BLAKE3 team.
    assert content_hash.content_hash(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_stream_has_the_hash_of_its_content_wherever_its_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 100
    for size in (1, 999, 1 << 20):
        monkeypatch.setattr(content_hash, "_BLOCK_BYTES", size)
        assert stream_hash(io.BytesIO(content)) == (content_hash.content_hash(content), len(content))
