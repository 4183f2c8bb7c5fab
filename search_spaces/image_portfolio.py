"""Configurations that a search on images tries before it chooses for itself; no TensorFlow.

What a configuration leaves out takes its default. The first ones are small enough for two cores, and each is of another
kind; then come the regularised and the deep. None depends on colours or on a size.
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.image_context import ImageContext, most_stages
from search_spaces.network_size import epoch_share

Value = bool | int | float | str
Recipe = Mapping[str, Value]

_CNN: tuple[Recipe, ...] = (
    {"block": "plain", "num_stages": 2, "width": 32, "learning_rate": 4e-3},
    {"block": "residual", "num_stages": 2, "width": 32, "learning_rate": 4e-3},
    {"block": "residual", "num_stages": 3, "width": 16, "learning_rate": 4e-3, "dropout": 0.2},
    {"block": "plain", "num_stages": 3, "width": 32, "learning_rate": 2e-3, "pooling": "flatten", "dropout": 0.3},
    {
        "block": "inverted",
        "num_stages": 3,
        "blocks_per_stage": 2,
        "width": 16,
        "learning_rate": 4e-3,
        "squeeze_excite": True,
        "activation": "silu",
    },
    {
        "block": "residual",
        "num_stages": 3,
        "blocks_per_stage": 2,
        "width": 32,
        "learning_rate": 2e-3,
        "augmentation": "randaugment",
        "magnitude": 0.4,
        "dropout": 0.3,
        "stochastic_depth": 0.1,
    },
    {"block": "dense", "num_stages": 3, "blocks_per_stage": 3, "width": 24, "growth_rate": 12, "learning_rate": 4e-3},
    {
        "block": "residual",
        "num_stages": 3,
        "width": 48,
        "learning_rate": 2e-3,
        "mixing": "cutmix",
        "mixing_alpha": 1.0,
        "dropout": 0.2,
    },
    {
        "block": "convnext",
        "num_stages": 2,
        "blocks_per_stage": 2,
        "width": 32,
        "normalisation": "layer",
        "activation": "gelu",
        "learning_rate": 2e-3,
        "kernel": 5,
    },
)

_CELL: tuple[Recipe, ...] = (
    {"learning_rate": 4e-3},
    {"learning_rate": 4e-3, "edge_0_3": "convolution_3x3", "edge_0_2": "convolution_3x3"},
    {"learning_rate": 4e-3, "edge_1_3": "average_3x3", "edge_0_2": "convolution_1x1", "width": 24},
)

_VIT: tuple[Recipe, ...] = (
    {"learning_rate": 1e-3, "warmup_share": 0.1},
    {"learning_rate": 1e-3, "warmup_share": 0.1, "depth": 2, "width": 96},
    {"learning_rate": 5e-4, "warmup_share": 0.1, "mixing": "cutmix", "mixing_alpha": 1.0, "depth": 6},
)

_MIXER: tuple[Recipe, ...] = (
    {"learning_rate": 1e-3, "warmup_share": 0.1},
    {"learning_rate": 2e-3, "warmup_share": 0.1, "depth": 2, "width": 96, "dropout": 0.2},
)

_PRETRAINED: tuple[Recipe, ...] = (
    {"fine_tuning": "frozen", "learning_rate": 3e-3},
    {"learning_rate": 2e-3},
    {"learning_rate": 1e-3, "mixing": "cutmix", "mixing_alpha": 1.0, "backbone_rate": 0.3},
)

_TRAINED: tuple[Recipe, ...] = (
    {"learning_rate": 4e-3, "backbone_rate": 1.0, "frozen_share": 0.05},
    {"learning_rate": 4e-3, "backbone_rate": 0.4, "frozen_share": 0.05},
    {"fine_tuning": "frozen", "learning_rate": 1e-2},
)
"""For a network of an earlier search: it has learned from thousands of images and not from a million, so what it knows
is worth more as a start than as it is."""

IMAGE_RECIPES: Mapping[str, tuple[Recipe, ...]] = {
    "cell": _CELL,
    "cnn": _CNN,
    "mixer": _MIXER,
    "pretrained": _PRETRAINED,
    "vit": _VIT,
}
"""Name of a space -> its portfolio, the surest first."""

_WEIGHT_DECAY = 1e-2
_BATCH_SIZE = 32
_LARGE = 48
"""Pixels a side from which on networks have one more stage, and halve images in the stem."""
_MIDDLE = 24
"""Pixels a side from which on two stages see too little of an image."""
_LEAST_AT_FULL_SIZE = 0.5
"""Share of all epochs that there has to be time for, or images of a middle size are halved in the stem: of 32 pixels a
side, twice as many epochs of the same width are worth more than the details."""

_OPERATIONS_A_SECOND = 2e10
_ROW_SECONDS = 4e-5
"""Multiply-adds that two cores train in a second, and what an image costs beside them."""


def image_portfolio(space_name: str, context: ImageContext, *, seconds: float) -> tuple[Recipe, ...]:
    """Returns the portfolio of a space for images; () for one that has none, as those of users.

    Args:
        space_name: The space.
        context: The images.
        seconds: Time for everything; 0 for no limit.
    """
    recipes = IMAGE_RECIPES.get(space_name, ())
    if space_name == "pretrained" and context.backbone.endswith(".keras"):
        recipes = _TRAINED
    return tuple(_fitted(recipe, context, seconds) for recipe in recipes)


def _fitted(recipe: Recipe, context: ImageContext, seconds: float) -> Recipe:
    """Returns a recipe with what depends on the images, their number and the time."""
    sizes = context.batch_sizes()
    fitted: dict[str, Value] = {
        "weight_decay": _WEIGHT_DECAY,
        "batch_size": min(sizes, key=lambda size: abs(size - _BATCH_SIZE)),
        **recipe,
    }
    if "num_stages" in fitted:
        side, stages = min(context.height, context.width), int(fitted["num_stages"])
        wanted = stages + 1 if side >= _LARGE else max(stages, 3) if side >= _MIDDLE else stages
        fitted["num_stages"] = min(wanted, most_stages(context))
        if _MIDDLE <= side < _LARGE and _share(fitted, context, seconds) < _LEAST_AT_FULL_SIZE:
            fitted["stem_stride"] = 2
    if not context.task.is_classification:
        fitted = {name: value for name, value in fitted.items() if not name.startswith("mixing")}
    fitted["epoch_share"] = _share(fitted, context, seconds)
    return fitted


def _share(recipe: Recipe, context: ImageContext, seconds: float) -> float:
    """Returns the share of the epochs that a recipe takes."""
    epoch = context.num_training_rows * (_ROW_SECONDS + 3 * _multiply_adds(recipe, context) / _OPERATIONS_A_SECOND)
    return epoch_share(context.max_epochs * epoch, seconds=seconds)


def _multiply_adds(recipe: Recipe, context: ImageContext) -> float:
    """Returns about how many multiply-adds a network takes for one image; those of residual blocks stand for all."""
    usual = 1 if context.height * context.width <= _LARGE**2 else 2
    pixels = context.height * context.width / int(recipe.get("stem_stride", usual)) ** 2
    width, kernel = int(recipe.get("width", 32)), int(recipe.get("kernel", 3))
    convolutions = 2 * int(recipe.get("num_stages", 3)) * int(recipe.get("blocks_per_stage", 1))
    # Halving the map and doubling the width leaves the work of a stage what it is.
    return float(pixels * convolutions * (kernel * width) ** 2)
