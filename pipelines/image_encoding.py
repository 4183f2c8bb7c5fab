"""How a column of images is brought to one size: decided from the training images, without decoding them.

Decoding itself is `pipelines.image_decoder`, in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipelines.image_headers import ImageFormat, ImageHeader
from pipelines.image_references import image_headers
from pipelines.schema import FeatureSpec, checked_fields

MIN_SIDE, MAX_SIDE = 32, 128
"""Bounds of the automatic side in pixels; images that are smaller than the lower one keep their size."""

SMALLEST_SIZE, LARGEST_SIZE = 4, 1024
"""Bounds of a side that is asked for."""

_SIDE_STEP = 8
_PASSES, _SECONDS_PER_PIXEL = 200, 2e-7
"""What a search costs: so many passes over the training images, each so long for a pixel on one core."""


class Resize(StrEnum):
    """How an image of another shape gets the shape of all."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"


class Colour(StrEnum):
    """How many channels images have."""

    AUTO = "auto"
    GREY = "grey"
    RGB = "rgb"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What is wanted of images.

    Attributes:
        size: Side in pixels; 0 takes one by the images and the time.
        resize: How other shapes are treated.
        colour: Channels; ``auto`` takes grey where all training images are.
        seconds: Time of the whole search in seconds; 0 for no limit.
        cores: Cores that there are.
    """

    size: int = 0
    resize: Resize = Resize.STRETCH
    colour: Colour = Colour.AUTO
    seconds: float = 0.0
    cores: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoding:
    """A column of images: each becomes ``(height, width, channels)`` uint8.

    Attributes:
        name: Name of the column.
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: How other shapes are treated.
        reason: Why this size and these channels, with the numbers that led to it.
    """

    name: str
    height: int
    width: int
    channels: int
    resize: Resize
    reason: str

    @property
    def num_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.height * self.width * self.channels

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self) | {"resize": self.resize.value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild what ``to_json`` wrote.

        Args:
            record: The fields.

        Raises:
            DataError: A field is unknown or missing.
        """
        values = checked_fields(cls, record)
        return cls(**values | {"resize": Resize(values["resize"])})


def fit_image(table: pa.Table, feature: FeatureSpec, request: ImageRequest) -> ImageEncoding:
    """Decide the size and the channels of a column of images.

    Args:
        table: The training rows; every one has an image that can be decoded.
        feature: The column.
        request: What is wanted.
    """
    headers = image_headers(table.column(feature.name))
    heights, widths = (np.array([getattr(one, side) for one in headers]) for side in ("height", "width"))
    height, width = int(np.median(heights)), int(np.median(widths))
    same = bool((heights == height).all() and (widths == width).all())
    shapes = f"all are {height} x {width}" if same else f"the median is {height} x {width}"
    if request.size:
        sides, why = (request.size, request.size), "as asked"
    else:
        sides, why = _sides(height, width, request, num_rows=len(headers))
    channels, colour = _channels(headers, request.colour)
    resized = f", others are made so by {request.resize}" if not same or sides != (height, width) else ""
    return ImageEncoding(
        name=feature.name,
        height=sides[0],
        width=sides[1],
        channels=channels,
        resize=request.resize,
        reason=f"{sides[0]} x {sides[1]} pixels ({shapes}; {why}){resized}; {colour}; {_formats(headers)}",
    )


def _sides(height: int, width: int, request: ImageRequest, *, num_rows: int) -> tuple[tuple[int, int], str]:
    """Return the sides and why; the shape of the median image stays."""
    largest = max(height, width)
    cap = float(MAX_SIDE)
    if request.seconds:
        affordable = request.seconds * request.cores / (_PASSES * num_rows * _SECONDS_PER_PIXEL)
        cap = min(max(math.sqrt(affordable), MIN_SIDE), MAX_SIDE)
    cap = int(cap) // _SIDE_STEP * _SIDE_STEP
    if largest <= cap:
        small = (max(height, SMALLEST_SIZE), max(width, SMALLEST_SIZE))
        return small, "their own size"
    scaled = tuple(max(_SIDE_STEP, round(side * cap / largest / _SIDE_STEP) * _SIDE_STEP) for side in (height, width))
    reason = f"at most {cap} a side in the time and with the cores there are" if cap < MAX_SIDE else f"at most {cap}"
    return (scaled[0], scaled[1]), reason


def _channels(headers: Sequence[ImageHeader], colour: Colour) -> tuple[int, str]:
    if colour is not Colour.AUTO:
        return (1, "grey as asked") if colour is Colour.GREY else (3, "RGB as asked")
    grey = sum(header.is_grey for header in headers)
    if grey == len(headers):
        return 1, "all are grey"
    return 3, f"{len(headers) - grey:,} of {len(headers):,} have colours"


def _formats(headers: Sequence[ImageHeader]) -> str:
    counts = {kind: sum(header.format is kind for header in headers) for kind in ImageFormat}
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
