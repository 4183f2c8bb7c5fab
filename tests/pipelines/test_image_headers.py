from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.image_headers import (
    MAX_PIXELS,
    BrokenImageError,
    ImageFormat,
    jpeg_orientation,
    looks_like_image,
    read_header,
)

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("is_grey", [True, False])
def test_size_and_colour_are_read(kind: str, is_grey: bool) -> None:
    data = encoded(Image.fromarray(GREY if is_grey else COLOURS), kind)
    header = read_header(data)
    assert (header.format, header.width, header.height, header.is_grey) == (ImageFormat(kind), 7, 5, is_grey)
    assert looks_like_image(data)


@pytest.mark.parametrize(
    ("mode", "kind", "is_grey"),
    [("1", "PNG", True), ("LA", "PNG", True), ("RGBA", "PNG", False), ("P", "PNG", False), ("CMYK", "JPEG", False),
     ("RGBA", "BMP", False)],
)  # fmt: skip
def test_modes_are_read(mode: str, kind: str, is_grey: bool) -> None:
    header = read_header(encoded(Image.fromarray(COLOURS).convert(mode), kind))
    assert (header.width, header.height, header.is_grey) == (7, 5, is_grey)


def test_sixteen_bits_are_read() -> None:
    header = read_header(encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"))
    assert (header.width, header.height, header.is_grey) == (7, 5, True)


def test_an_animation_is_told() -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (5, 7), dtype=np.uint8)) for _ in range(3)]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert read_header(animated).is_animated
    assert not read_header(encoded(frames[0], "GIF")).is_animated


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("left", [3, 20, -30, -3])
def test_a_file_that_is_cut_off_is_told(kind: str, left: int) -> None:
    data = encoded(Image.fromarray(COLOURS), kind)
    with pytest.raises(BrokenImageError):
        read_header(data[:left])


def test_the_end_of_a_preview_is_not_the_end_of_a_photograph() -> None:
    data = encoded(Image.fromarray(COLOURS), "JPEG")
    preview = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data
    assert read_header(data[:2] + preview + data[2:]).width == 7
    with pytest.raises(BrokenImageError, match="cut off"):
        read_header((data[:2] + preview + data[2:])[:-5])


def test_a_flipped_bit_is_told() -> None:
    data = bytearray(encoded(Image.fromarray(COLOURS), "PNG"))
    data[60] ^= 1
    with pytest.raises(BrokenImageError, match="a checksum does not fit at byte"):
        read_header(bytes(data))


def test_a_jpeg_of_more_than_eight_bits_is_told() -> None:
    data = encoded(Image.fromarray(COLOURS), "JPEG")
    place = data.index(b"\xff\xc0") + 4
    with pytest.raises(BrokenImageError, match="a JPEG of 12 bits a colour, which a served model cannot decode"):
        read_header(data[:place] + b"\x0c" + data[place + 1 :])


def test_an_empty_file_is_told() -> None:
    with pytest.raises(BrokenImageError, match="the file is empty"):
        read_header(b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2\n", "it is no image; expected JPEG, PNG, GIF or BMP"),
        (encoded(Image.fromarray(COLOURS), "TIFF"), "it is TIFF, which a served model cannot decode: convert it"),
        (encoded(Image.fromarray(COLOURS), "WEBP"), "it is WebP, which a served model cannot decode: convert it"),
        (encoded(Image.fromarray(GREY).convert("1"), "BMP"), "a BMP of 1 bits a pixel; expected 8, 24 or 32"),
        (encoded(Image.fromarray(COLOURS).convert("P"), "BMP"), "a BMP with a palette"),
    ],
)  # fmt: skip
def test_another_format_is_told(data: bytes, message: str) -> None:
    with pytest.raises(BrokenImageError, match=message):
        read_header(data)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_how_the_camera_was_held_is_read(orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "a maker", orientation
    data = encoded(Image.fromarray(COLOURS), "JPEG", exif=exif.tobytes())
    assert jpeg_orientation(data) == (orientation if 1 <= orientation <= 8 else 1)
    header = read_header(data)
    assert (header.width, header.height) == ((5, 7) if 5 <= orientation <= 8 else (7, 5))


@pytest.mark.parametrize("length", [0, 3, 30, 36, 40, 49])
def test_an_orientation_that_is_cut_off_is_none(length: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert jpeg_orientation(encoded(Image.fromarray(COLOURS), "JPEG", exif=exif.tobytes())[:length]) == 1


def test_what_announces_more_pixels_than_memory_is_meant_for_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(COLOURS), "GIF"))
    data[6:10] = (10_000).to_bytes(2, "little") * 2
    with pytest.raises(BrokenImageError, match=f"10,000 pixels; expected at most {MAX_PIXELS:,}: make it smaller"):
        read_header(bytes(data))
