"""What the first bytes of an image say, read without decoding it; no TensorFlow, no Pillow.

The formats are those that the exported model decodes: JPEG, PNG, GIF and BMP. A file that is cut off, or whose
checksums do not fit, is told apart here, before any training.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded, 67 million: 200 MB of memory while it is made smaller."""

_PNG, _GIF, _BMP, _JPEG = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a"), b"BM", b"\xff\xd8\xff"
_OTHERS: Mapping[str, tuple[bytes, ...]] = {
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "WebP": (b"RIFF",),
    "HEIC or AVIF": tuple(b"\x00\x00\x00" + bytes([size]) + b"ftyp" for size in range(16, 64, 4)),
}
EXIF_BYTES = 4096
"""First bytes of a JPEG in which its orientation is looked for."""

EXIF_PLACES = (6, 24)
"""Where ``Exif`` stands in a JPEG: in its first segment, or in the second behind the usual one of JFIF."""

ORIENTATION_TAG = 0x0112
TURNED = 5
"""Orientations from this one on exchange width and height."""

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
        width: Columns of pixels, as the image is to be seen.
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
        if other:
            # The exported model decodes what it is sent, and TensorFlow cannot decode these.
            raise BrokenImageError(f"it is {other}, which a served model cannot decode: convert it to PNG or JPEG")
        raise BrokenImageError("it is no image; expected JPEG, PNG, GIF or BMP")
    if min(header.width, header.height) < 1:
        raise BrokenImageError("it has no pixels")
    if header.width * header.height > MAX_PIXELS:
        raise BrokenImageError(
            f"it has {header.width:,} x {header.height:,} pixels; expected at most {MAX_PIXELS:,}: make it smaller"
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
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
            if bits != 8:
                # Those of scanners and of medicine: found here, one is left out; found later, it would end the search.
                raise BrokenImageError(f"it is a JPEG of {bits} bits a colour, which a served model cannot decode")
            header = ImageHeader(ImageFormat.JPEG, width, height, components == 1)
        if marker == 0xDA:
            break
        place += 2 + length
    if header is None:
        raise BrokenImageError("its size is missing")
    # A preview in the header ends with the same marker; what counts is the end of the pixels.
    if data.rfind(b"\xff\xd9") < place:
        raise BrokenImageError("the file is cut off")
    if jpeg_orientation(data) >= TURNED:
        return replace(header, width=header.height, height=header.width)
    return header


def jpeg_orientation(data: bytes) -> int:
    """Return how a camera was held, 1 (upright) to 8 (Exif 3.0, tag 0x0112); 1 where nothing says so.

    Args:
        data: A JPEG.
    """
    head = data[:EXIF_BYTES]
    place = next((place + 6 for place in EXIF_PLACES if head[place : place + 4] == b"Exif"), len(head))
    order = {b"II": "<", b"MM": ">"}.get(head[place : place + 2], "")
    if not order:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", head, place + 4)
        (num_entries,) = struct.unpack_from(f"{order}H", head, place + first)
        for entry in range(place + first + 2, place + first + 2 + 12 * num_entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", head, entry)
            if tag == ORIENTATION_TAG:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _gif(data: bytes) -> ImageHeader:
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    if not data.rstrip(b"\x00").endswith(b";"):
        raise BrokenImageError("the file is cut off")
    size = _palette_bytes(packed)
    palette = data[13 : 13 + size] if size else b"\x00\x01\x02"
    return ImageHeader(ImageFormat.GIF, width, height, _has_grey_palette(palette), _num_frames(data, 13 + size) > 1)


def _num_frames(data: bytes, place: int) -> int:
    """Return how many pictures a GIF has from a block on; two stand for more."""
    found = 0
    while found < 2 and data[place : place + 1] in (b"!", b","):
        if data[place] == ord("!"):
            place += 2
        else:
            found += 1
            place += 11 + _palette_bytes(data[place + 9])
        while data[place]:
            place += 1 + data[place]
        place += 1
    return found


def _palette_bytes(packed: int) -> int:
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


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
