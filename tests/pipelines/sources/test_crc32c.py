from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.crc32c import crc32c, masked_crc32c, masked_crc32c_of, masked_crc32c_of_rows


@pytest.mark.parametrize(
    ("message", "checksum"),
    [
        # RFC 3720, appendix B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_checksums(message: bytes, checksum: int) -> None:
    assert crc32c([message]).tolist() == [checksum]
    # Among many it is processed side by side with them.
    assert crc32c([message] * 40).tolist() == [checksum] * 40


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(1, 30))
def test_a_message_has_one_checksum_whatever_it_is_processed_with(messages: list[bytes], times: int) -> None:
    long = [message * times * 7 for message in messages]
    expected = [masked_crc32c_of(message) for message in long]
    assert masked_crc32c(long).tolist() == expected
    assert [int(masked_crc32c([message])[0]) for message in long] == expected


def test_a_flipped_bit_shows_anywhere_in_a_long_message() -> None:
    message = bytearray(np.random.default_rng(0).bytes(100_003))
    whole = crc32c([bytes(message)])[0]
    for place in (0, 3, 4, 50_000, 100_002):
        message[place] ^= 1
        assert crc32c([bytes(message)])[0] != whole
        message[place] ^= 1


def test_rows_of_one_length_have_the_checksums_of_messages() -> None:
    rows = np.arange(240, dtype=np.uint8).reshape(30, 8)
    expected = masked_crc32c([row.tobytes() for row in rows])
    np.testing.assert_array_equal(masked_crc32c_of_rows(rows), expected)
