"""What a space knows of the images it builds networks for; no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from pipelines.schema import Task
from search_spaces.context import TrainingContext

MAX_STAGES = 5
"""Stages of a convolutional network."""


@final
@dataclass(frozen=True, slots=True)
class ImageContext(TrainingContext):
    """The decoded images and the task that a space of networks for images builds for.

    Networks take a dictionary: ``image`` (batch, height, width, channels) uint8 and, where there are other columns
    too, ``numeric`` (batch, num_numeric) float32 and ``categorical`` (batch, num_categorical) int32.

    Attributes:
        task: What is predicted.
        num_classes: Number of classes or labels; 0 for regression.
        height: Rows of pixels of every decoded image.
        width: Columns of pixels.
        channels: 1 (grey) or 3 (RGB).
        num_training_rows: Images that one epoch sees.
        max_epochs: Epochs that learning-rate schedules are laid out for.
        num_replicas: Copies of a network that train in step.
        judged_by_labels: Whether the objective looks at the predicted class alone, as accuracy does.
        num_targets: Values that a regression predicts.
        quantiles: Levels of a quantile regression, rising; empty for any other task.
        searches_balance: Whether how classes are balanced is a hyperparameter.
        class_counts: Training images of every class; () where they were not counted.
        may_flip: Whether an image and its mirror image mean the same: true of things, false of letters and digits.
        pixel_mean: Mean of every channel over the training images, in [0, 255]; () where it was not measured.
        pixel_deviation: Standard deviation of every channel, as `pixel_mean`.
        num_numeric: Width of the encoded numeric matrix of the other columns.
        cardinalities: Number of ids of every other encoded categorical column.
        backbone: File that the space ``pretrained`` begins with: a network of an earlier search, or weights of one of
            Keras Applications; empty for what Keras keeps.
    """

    task: Task
    num_classes: int
    height: int
    width: int
    channels: int
    num_training_rows: int
    max_epochs: int
    num_replicas: int = 1
    judged_by_labels: bool = False
    num_targets: int = 1
    quantiles: tuple[float, ...] = ()
    searches_balance: bool = False
    class_counts: tuple[int, ...] = ()
    may_flip: bool = True
    pixel_mean: tuple[float, ...] = ()
    pixel_deviation: tuple[float, ...] = ()
    num_numeric: int = 0
    cardinalities: tuple[int, ...] = ()
    backbone: str = ""

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: Images have no pixels, or another number of channels.
        """
        if min(self.height, self.width) < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"images are {self.height} x {self.width} with {self.channels} channels: expected at least 1 x 1 "
                f"pixels and 1 (grey) or 3 (RGB) channels"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(height, width, channels)`` of one image."""
        return self.height, self.width, self.channels


def most_stages(context: ImageContext) -> int:
    """Returns how many stages of a network have something to halve, at most `MAX_STAGES`, at least 2."""
    smallest = min(context.height, context.width)
    return min(MAX_STAGES, max(2, int(math.log2(max(smallest, 2)))))
