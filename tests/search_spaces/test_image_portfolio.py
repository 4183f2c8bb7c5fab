from __future__ import annotations

import pytest

from pipelines.schema import Task
from search_spaces.image_context import ImageContext, most_stages
from search_spaces.image_portfolio import Recipe, image_portfolio


def images(side: int, *, num_rows: int = 1_800) -> ImageContext:
    return ImageContext(Task.MULTICLASS, 12, side, side, 3, num_rows, 100)


def recipes(side: int, *, seconds: float) -> tuple[Recipe, ...]:
    return image_portfolio("cnn", images(side), seconds=seconds)


@pytest.mark.parametrize(("side", "least"), [(8, 2), (24, 3), (32, 3), (48, 3)])
def test_larger_images_have_more_stages(side: int, least: int) -> None:
    assert min(int(recipe["num_stages"]) for recipe in recipes(side, seconds=0.0)) == least


@pytest.mark.parametrize("side", [4, 6, 7, 8, 16, 64])
def test_no_network_has_more_stages_than_its_space(side: int) -> None:
    assert max(int(recipe["num_stages"]) for recipe in recipes(side, seconds=60.0)) <= most_stages(images(side))


@pytest.mark.parametrize(
    ("side", "seconds", "stride"),
    [(32, 300.0, 2), (32, 36_000.0, None), (32, 0.0, None), (8, 20.0, None), (224, 300.0, None)],
)
def test_images_of_a_middle_size_are_halved_where_time_is_short(side: int, seconds: float, stride: int | None) -> None:
    # Larger ones are halved by the default of the space.
    assert recipes(side, seconds=seconds)[0].get("stem_stride") == stride


def test_networks_that_are_halved_get_the_longer_schedules_that_there_is_time_for() -> None:
    narrow = next(recipe for recipe in recipes(32, seconds=300.0) if recipe["width"] == 16)
    assert narrow["epoch_share"] == 0.25
    assert all(recipe["epoch_share"] == 1.0 for recipe in recipes(32, seconds=0.0))
