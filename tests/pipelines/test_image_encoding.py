from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.image_encoding import Colour, ImageEncoding, ImageRequest, Resize, fit_image
from pipelines.schema import FeatureKind, FeatureSpec, RawType

FEATURE = FeatureSpec("photo", kind=FeatureKind.IMAGE, raw_type=RawType.STRING, reason="")


def images(*shapes: tuple[int, ...]) -> pa.Table:
    rng = np.random.default_rng(0)
    encoded = []
    for shape in shapes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return pa.table({"photo": pa.array(encoded, pa.large_binary())})


def fitted(*shapes: tuple[int, ...], **request: object) -> ImageEncoding:
    return fit_image(images(*shapes), FEATURE, ImageRequest(**request))  # type: ignore[arg-type]


def test_small_images_keep_their_size() -> None:
    found = fitted((8, 8), (8, 8))
    assert (found.height, found.width, found.channels) == (8, 8, 1)
    assert "all are 8 x 8; their own size" in found.reason


def test_the_median_decides_and_its_shape_stays() -> None:
    found = fitted((100, 400), (110, 410), (50, 60))
    assert (found.height, found.width) == (32, 128)
    assert "the median is 100 x 400" in found.reason


def test_little_time_makes_images_smaller_down_to_a_limit() -> None:
    shapes = [(200, 200)] * 50
    sizes = [fitted(*shapes, seconds=seconds, cores=2).height for seconds in (0.0, 10_000.0, 5.0, 0.01)]
    assert sizes[0] == sizes[1] == 128
    assert 32 < sizes[2] < 128
    assert sizes[3] == 32


def test_a_size_that_is_asked_for_is_taken() -> None:
    found = fitted((100, 50), size=24, resize=Resize.PAD)
    assert (found.height, found.width, found.resize) == (24, 24, Resize.PAD)
    assert "as asked), others are made so by pad" in found.reason


@pytest.mark.parametrize(
    ("shapes", "colour", "channels"),
    [
        ([(9, 9), (9, 9)], Colour.AUTO, 1),
        ([(9, 9), (9, 9, 3)], Colour.AUTO, 3),
        ([(9, 9, 3)], Colour.GREY, 1),
        ([(9, 9)], Colour.RGB, 3),
    ],
)
def test_one_image_with_colours_makes_all_rgb(
    shapes: list[tuple[int, ...]], colour: Colour, channels: int
) -> None:
    assert fitted(*shapes, colour=colour).channels == channels


def test_json_brings_it_back() -> None:
    found = fitted((20, 30), resize=Resize.CROP)
    assert ImageEncoding.from_json(json.loads(json.dumps(found.to_json()))) == found
