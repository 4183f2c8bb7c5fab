"""What the first bytes of an image say, read without decoding it; no TensorFlow, no Pillow.

The formats are those that the exported model decodes: JPEG, PNG, GIF and BMP. A file that is cut off, or whose
checksums do not fit, is told apart here, before any training.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded, 67 million: 200 MB of memory while it is made smaller."""

_PNG, _GIF, _BMP, _JPEG = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a"), b"BM", b"\xff\xd8\xff"
_OTHERS: Mapping[str, tuple[bytes, ...]] = {"TIFF": (b"II*\x00", b"MM\x00*"), "WebP": (b"RIFF",)}
_CHUNK = struct.Struct(">I4s")
_GREY_PNG = (0, 4)
_PALETTE_PNG = 3
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


class ImageFormat(StrEnum):
    """How an image is encoded."""

    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    BMP = "BMP"


class BrokenImageError(ValueError):
    """An image cannot be decoded; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image without decoding it.

    Attributes:
        format: How it is encoded.
        width: Columns of pixels.
        height: Rows of pixels.
        is_grey: Whether it has no colour.
        is_animated: Whether there is more than one frame; the first one counts.
    """

    format: ImageFormat
    width: int
    height: int
    is_grey: bool
    is_animated: bool = False


def looks_like_image(data: bytes) -> bool:
    """Return whether bytes begin as an image of one of the formats.

    Args:
        data: A file, or its first bytes.
    """
    return any(data.startswith(begin) for begin in (_PNG, *_GIF, _BMP, _JPEG))


def read_header(data: bytes) -> ImageHeader:
    """Return what is known of an image without decoding it.

    Args:
        data: The whole file.

    Raises:
        BrokenImageError: It is empty, cut off, damaged, of another format, or larger than ``MAX_PIXELS``.
    """
    if not data:
        raise BrokenImageError("the file is empty")
    for begins, read in _READERS.items():
        if data.startswith(begins):
            try:
                header = read(data)
            except (struct.error, IndexError) as error:
                raise BrokenImageError("the file is cut off") from error
            break
    else:
        other = next((name for name, begins in _OTHERS.items() if data.startswith(begins)), "")
        what = f"it is {other}" if other else "it is no image"
        raise BrokenImageError(f"{what}; expected JPEG, PNG, GIF or BMP")
    if min(header.width, header.height) < 1:
        raise BrokenImageError("it has no pixels")
    if header.width * header.height > MAX_PIXELS:
        raise BrokenImageError(
            f"it has {header.width:,} x {header.height:,} pixels; expected at most {MAX_PIXELS:,} pixels"
        )
    return header


def _png(data: bytes) -> ImageHeader:
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    is_grey, is_animated, place = colour in _GREY_PNG, False, len(_PNG)
    while True:
        length, kind = _CHUNK.unpack_from(data, place)
        end = place + _CHUNK.size + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(data[place + 4 : end]) != checksum:
            raise BrokenImageError(f"a checksum does not fit at byte {place:,}")
        if kind == b"PLTE" and colour == _PALETTE_PNG:
            is_grey = _has_grey_palette(data[place + _CHUNK.size : end])
        is_animated |= kind == b"acTL"
        if kind == b"IEND":
            return ImageHeader(ImageFormat.PNG, width, height, is_grey, is_animated)
        place = end + 4


def _jpeg(data: bytes) -> ImageHeader:
    place, header = 2, None
    while True:
        if data[place] != 0xFF:
            raise BrokenImageError(f"a marker is damaged at byte {place:,}")
        marker = data[place + 1]
        if marker == 0xFF or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, place + 5)
            header = ImageHeader(ImageFormat.JPEG, width, height, components == 1)
        if marker == 0xDA:
            break
        place += 2 + length
    if header is None:
        raise BrokenImageError("its size is missing")
    # A preview in the header ends with the same marker; what counts is the end of the pixels.
    if data.rfind(b"\xff\xd9") < place:
        raise BrokenImageError("the file is cut off")
    return header


def _gif(data: bytes) -> ImageHeader:
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    if not data.rstrip(b"\x00").endswith(b";"):
        raise BrokenImageError("the file is cut off")
    palette = data[13 : 13 + 3 * 2 ** ((packed & 7) + 1)] if packed & 0x80 else b"\x00\x01\x02"
    frames = data.count(b"\x00\x21\xf9\x04")
    return ImageHeader(ImageFormat.GIF, width, height, _has_grey_palette(palette), frames > 1)


def _bmp(data: bytes) -> ImageHeader:
    offset, _, width, height = struct.unpack_from("<IIii", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if bits not in (8, 24, 32) or compression not in (0, 3):
        raise BrokenImageError(f"it is a BMP of {bits} bits a pixel; expected 8, 24 or 32, not compressed")
    (size,) = struct.unpack_from("<I", data, 14)
    if bits == 8 and data[14 + size : offset] != bytes(level for grey in range(256) for level in (grey, grey, grey, 0)):
        raise BrokenImageError("it is a BMP with a palette; expected 8 bits of grey, or 24 or 32 bits")
    stride = (width * bits + 31) // 32 * 4
    if len(data) < offset + stride * abs(height):
        raise BrokenImageError("the file is cut off")
    return ImageHeader(ImageFormat.BMP, width, abs(height), bits == 8)


def _has_grey_palette(palette: bytes) -> bool:
    return palette[0::3] == palette[1::3] == palette[2::3]


_READERS: Mapping[bytes | tuple[bytes, ...], Callable[[bytes], ImageHeader]] = {
    _PNG: _png,
    _JPEG: _jpeg,
    _GIF: _gif,
    _BMP: _bmp,
}
