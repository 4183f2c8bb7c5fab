"""The settings of a column of images."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.errors import ConfigError
from pipelines.image_encoding import LARGEST_SIZE, SMALLEST_SIZE, Colour, Resize


class ImageCache(StrEnum):
    """What of the training images stays in memory."""

    AUTO = "auto"
    DECODED = "decoded"
    ENCODED = "encoded"


class MirrorImages(StrEnum):
    """Whether an image and its mirror image mean the same."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How images are read and changed.

    Attributes:
        size: Side in pixels; 0 takes one by the images, the time and the cores.
        resize: ``stretch``, ``pad`` or ``crop`` for images of another shape.
        colour: ``grey``, ``rgb``, or ``auto`` for grey where all training images are.
        cache: Whether training images stay in memory ``decoded`` or ``encoded``; ``auto`` takes decoded if they fit.
        mirror: Whether training may mirror images left to right; ``auto`` does so unless the classes are letters,
            digits or sides.
    """

    size: int = 0
    resize: Resize = Resize.STRETCH
    colour: Colour = Colour.AUTO
    cache: ImageCache = ImageCache.AUTO
    mirror: MirrorImages = MirrorImages.AUTO

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: The size is out of range.
        """
        if self.size and not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise ConfigError(
                f"size of images is {self.size}: expected {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, or 0 (automatic)"
            )
