from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.errors import DataError
from pipelines.image_decoder import ImageDecoder
from pipelines.image_decoder import jpeg_orientation as orientation_in_graph
from pipelines.image_encoding import ImageEncoding, Resize
from pipelines.image_headers import ImageFormat, ImageHeader, jpeg_orientation
from pipelines.image_references import ImageFile, file_contents, image_file_column, image_places, images_found

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoder(height: int = 12, width: int = 16, channels: int = 3, resize: Resize = Resize.STRETCH) -> ImageDecoder:
    return ImageDecoder(
        ImageEncoding(name="image", height=height, width=width, channels=channels, resize=resize, reason="")
    )


def decoded(data: bytes, **shape: Any) -> Any:
    return decoder(**shape).decode_one(tf.constant(data)).numpy()


def test_pixels_of_the_right_size_come_back_exactly() -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS))), COLOURS)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS), "BMP")), COLOURS)
    grey = COLOURS[..., :1]
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(grey[..., 0])), channels=1), grey)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGB", "GIF"), ("RGBA", "BMP"), ("1", "PNG"), ("LA", "PNG")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_brought_to_the_same_shape(mode: str, kind: str, channels: int) -> None:
    image = Image.fromarray(COLOURS).resize((160, 120)).convert(mode)
    found = decoded(encoded(image, kind), channels=channels)
    assert (found.shape, found.dtype) == ((12, 16, channels), np.uint8)
    expected = np.asarray(image.convert("RGB")).mean()
    assert abs(float(found.mean()) - expected) < 12


def test_sixteen_bits_become_eight() -> None:
    grey = COLOURS[..., 0]
    found = decoded(encoded(Image.fromarray(grey.astype(np.uint16) * 257)), channels=1)
    np.testing.assert_array_equal(found[..., 0], grey)


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.fromarray(np.full((12, 16), level, np.uint8)) for level in (10, 200, 250)]
    found = decoded(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), channels=1)
    assert np.abs(found.astype(int) - 10).max() <= 1


def test_shapes_are_stretched_padded_or_cropped() -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 15:25] = 200
    data = encoded(Image.fromarray(wide))
    stretched, padded, cropped = (decoded(data, height=10, width=10, channels=1, resize=how)[..., 0] for how in Resize)
    assert 40 < stretched.mean() < 60
    assert padded[0].max() == 0
    assert padded.max() > 150
    np.testing.assert_array_equal(cropped, 200)


def test_a_large_photograph_is_made_smaller_while_it_is_decoded() -> None:
    level = np.linspace(0, 255, 6_400).astype(np.uint8)
    photograph = encoded(Image.fromarray(np.broadcast_to(level, (8_000, 6_400)).copy()), "JPEG")
    found = decoded(photograph, height=32, width=32, channels=1)[..., 0]
    np.testing.assert_allclose(found[0], level.reshape(32, -1).mean(axis=1), atol=2)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    header = bytearray(encoded(Image.fromarray(COLOURS)))
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most|Expected an image"):
        decoded(bytes(header))


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_photograph_is_turned_upright(orientation: int) -> None:
    blocks = Image.fromarray(np.kron(COLOURS[:3, :4], np.ones((16, 16, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(blocks, "JPEG", exif=exif.tobytes())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    found = decoded(data, height=upright.shape[0], width=upright.shape[1])
    # Two decoders of JPEG round differently; a pixel of another block is far away.
    np.testing.assert_allclose(found, upright, atol=4)


@pytest.mark.parametrize("changed", [None, 24, 31, 33, 36, 38, 39, 40, 41])
def test_the_graph_reads_the_orientation_that_the_header_has(changed: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encoded(Image.fromarray(COLOURS), "JPEG", exif=exif.tobytes()))
    if changed is not None:
        data[changed] ^= 0x85
    for part in (bytes(data), bytes(data[:45]), b""):
        assert int(orientation_in_graph(tf.constant(part))) == jpeg_orientation(part)


@pytest.mark.parametrize("data", [b"", b"x", b"no image at all", encoded(Image.fromarray(COLOURS))[:-30]])
def test_what_is_no_image_is_an_error_of_the_graph(data: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(data)


def test_a_batch_is_its_images_in_whatever_company() -> None:
    images = [Image.fromarray(np.roll(COLOURS, shift, axis=1)) for shift in range(3)]
    files = [encoded(image, kind) for image, kind in zip(images, ("PNG", "JPEG", "GIF"), strict=True)]
    decode = decoder()
    together = tf.function(decode, input_signature=[tf.TensorSpec((None,), tf.string)])(tf.constant(files)).numpy()
    for place, data in enumerate(files):
        np.testing.assert_array_equal(together[place], decode.decode_one(tf.constant(data)).numpy())
    column = pa.chunked_array([pa.array(files, pa.large_binary())])
    np.testing.assert_array_equal(decode.decode_column(column), together)
    assert decode(tf.constant([], tf.string)).shape == (0, 12, 16, 3)


def test_files_are_decoded_as_their_bytes_are(tmp_path: Path) -> None:
    files = [encoded(Image.fromarray(np.roll(COLOURS, shift, axis=1)), "JPEG") for shift in range(3)]
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    decode, names = decoder(8, 8), [str(path).encode() for path in paths]
    together = tf.function(decode.decode_files)(tf.constant(names)).numpy()
    np.testing.assert_array_equal(together, decode(tf.constant(files)).numpy())
    np.testing.assert_array_equal(decode.decode_all(names, are_places=True), together)
    paths[1].unlink()
    with pytest.raises(DataError, match=r"1\.jpg', which the run reads from its file, .* put it back"):
        decode.decode_all(names, are_places=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"1\.jpg', which the run reads from its file"):
        tf.function(decode.decode_files)(tf.constant(names))


def test_images_inside_a_file_of_rows_are_decoded_as_their_bytes_are(tmp_path: Path) -> None:
    files = [encoded(Image.fromarray(np.roll(COLOURS, shift, axis=1)), "PNG") for shift in range(3)]
    (tmp_path / "rows").write_bytes(b"rows" + b"".join(files))
    begins = 4 + np.cumsum([0, *map(len, files)])
    header = ImageHeader(ImageFormat.PNG, 16, 12, is_grey=False)
    parts = [
        ImageFile(path="rows", offset=int(begin), length=len(data), digest=0, header=header)
        for begin, data in zip(begins, files, strict=False)
    ]
    table = images_found(pa.table({"image": image_file_column(parts)}), tmp_path)
    decode = decoder(8, 8)
    found = tf.function(decode.decode_files)(tf.constant(image_places(table.column("image")))).numpy()
    np.testing.assert_array_equal(found, decode(tf.constant(files)).numpy())
    np.testing.assert_array_equal(decode.decode_column(table.column("image")), found)
    assert file_contents(table.column("image").slice(1)).tolist() == files[1:]
