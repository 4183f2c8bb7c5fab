"""Fingerprints of content, by which it is known again: BLAKE3, as ``b3sum`` prints it.

It costs a tenth of what SHA-256 costs where the processor has no instructions for that, and every byte of every file is
hashed.
"""

from __future__ import annotations

from typing import IO

from blake3 import blake3

_BLOCK_BYTES = 1 << 20


def content_hash(content: bytes) -> str:
    """Return the BLAKE3 hash of bytes in 64 hexadecimal digits.

    Args:
        content: The bytes.
    """
    return blake3(content).hexdigest()


def stream_hash(stream: IO[bytes]) -> tuple[str, int]:
    """Return the BLAKE3 hash of what a stream still holds, in 64 hexadecimal digits, and its number of bytes.

    Args:
        stream: Read to its end, a block at a time.
    """
    digest, num_bytes = blake3(), 0
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
        num_bytes += len(block)
    return digest.hexdigest(), num_bytes
