"""CRC-32C (Castagnoli), the checksum of TFRecord files, for many records at once.

Polynomial 0x1EDC6F41, reflected 0x82F63B78 (RFC 3720, appendix B.4). A register that starts at zero is not moved by
zero bytes, so that records of different lengths are aligned at their ends and processed together; starting it at all
ones equals inverting the first four bytes of the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_PART_RECORDS = 4_096
_PART_BYTES = 1 << 24


def masked_crc32c(messages: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the masked checksum of each message, as TFRecord stores it: rotated right by 15 bits, plus a constant.

    Args:
        messages: The bytes of each.
    """
    return _masked(crc32c(messages))


def masked_crc32c_of_rows(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the masked checksum of each of some messages of one length.

    Args:
        rows: Their bytes, ``(num_messages, length)``; the length is even and at least 4.
    """
    rows = rows.copy()
    rows[:, :4] ^= np.uint8(0xFF)
    return _masked(~_registers(rows))


def _masked(crc: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)


def crc32c(messages: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the checksum of each message, of shape ``(num_messages,)``.

    Args:
        messages: The bytes of each.
    """
    lengths = np.array([len(message) for message in messages], np.int64)
    found = np.empty(len(messages), np.uint32)
    for i in np.flatnonzero(lengths < 4).tolist():
        found[i] = _bytewise(messages[i])
    # Sorted by length, neighbours need little padding.
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= 4]
    while order.size:
        # From the longest down: the first of a part says how many fit into it.
        longest = int(lengths[order[-1]])
        part = order[-max(1, min(_PART_RECORDS, _PART_BYTES // longest)) :]
        order = order[: -part.size]
        # A step costs some microseconds however few rows it moves: few long messages are cut into rows of their own.
        if part.size**2 >= longest:
            found[part] = _aligned([messages[i] for i in part])
        else:
            found[part] = [_long(messages[i]) for i in part]
    return found


def _aligned(messages: Sequence[bytes]) -> NDArray[np.uint32]:
    width = max(map(len, messages))
    width += width % 2
    block = np.frombuffer(b"".join(message.rjust(width, b"\0") for message in messages), np.uint8)
    rows = block.reshape(len(messages), width).copy()
    starts = width - np.array([len(message) for message in messages])
    rows[np.arange(len(messages))[:, np.newaxis], starts[:, np.newaxis] + np.arange(4)] ^= np.uint8(0xFF)
    return ~_registers(rows)


def _long(message: bytes) -> np.uint32:
    """Cut a message into rows, process the rows side by side, and join their registers."""
    width = 2 * int(np.ceil(np.sqrt(len(message)) / 2))
    head = bytes(byte ^ 0xFF for byte in message[:4]) + message[4:]
    size = -(-len(head) // width) * width
    rows = np.frombuffer(head.rjust(size, b"\0"), np.uint8).reshape(-1, width)
    over = _zeros_table(width)
    register = 0
    for row in _registers(rows).tolist():
        moved = over[0][register & 255] ^ over[1][register >> 8 & 255]
        register = moved ^ over[2][register >> 16 & 255] ^ over[3][register >> 24] ^ row
    return np.uint32(register ^ 0xFFFFFFFF)


def _registers(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return what is left in a register that starts at zero, for rows of equal and even length."""
    table = _table()
    pairs = np.ascontiguousarray(rows.reshape(len(rows), -1).view("<u2").T.astype(np.uint32))
    register = np.zeros(len(rows), np.uint32)
    for pair in pairs:
        register = table[(register ^ pair) & np.uint32(0xFFFF)] ^ (register >> np.uint32(16))
    return register


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """Return what two bytes add to the register."""
    register = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        register = np.where(register & 1, register >> 1 ^ np.uint32(_POLYNOMIAL), register >> 1)
    return register


@lru_cache(maxsize=16)
def _zeros_table(num_zeros: int) -> list[list[int]]:
    """Return what each byte of a register becomes behind zeros; the step is linear in the register."""
    table = _table()
    register = np.concatenate([np.arange(256, dtype=np.uint32) << np.uint32(8 * place) for place in range(4)])
    for _ in range(num_zeros // 2):
        register = table[register & np.uint32(0xFFFF)] ^ (register >> np.uint32(16))
    return [part.tolist() for part in register.reshape(4, 256)]


def masked_crc32c_of(message: bytes) -> int:
    """Return the masked checksum of one short message; arrays would cost more than they save.

    Args:
        message: Some bytes.
    """
    crc = _bytewise(message)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _bytewise(message: bytes) -> int:
    table = _byte_table()
    register = 0xFFFFFFFF
    for byte in message:
        register = table[(register ^ byte) & 255] ^ register >> 8
    return register ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    """Return what one byte adds to the register."""
    return [_eight_steps(register) for register in range(256)]


def _eight_steps(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register
