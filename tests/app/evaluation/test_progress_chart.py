from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from app.evaluation.metrics import METRICS
from app.evaluation.progress_chart import best_so_far, progress_chart

AUC, LOSS = METRICS["roc_auc"], METRICS["log_loss"]


def picture(chart: str) -> ET.Element:
    return ET.fromstring(chart[: chart.index("</svg>") + len("</svg>")])


def test_best_so_far_follows_the_direction_and_passes_over_failures() -> None:
    values = np.array([math.nan, 0.5, 0.4, math.nan, 0.9])
    np.testing.assert_array_equal(best_so_far(values, metric=AUC), [math.nan, 0.5, 0.5, 0.5, 0.9])
    np.testing.assert_array_equal(best_so_far(values, metric=LOSS), [math.nan, 0.5, 0.4, 0.4, 0.4])


def test_every_trial_with_a_value_is_a_dot() -> None:
    svg = picture(progress_chart([0.5, math.nan, 0.7, 0.6], metric=AUC))
    assert len(svg.findall("circle")) == 3
    assert svg.findtext("title") == "best roc_auc after 4 trials: 0.7"
    # Trials are numbered from 0 elsewhere on the page: the axis counts them.
    assert [text.text for text in svg.findall("text")][-1] == "after 4 trials"


@pytest.mark.parametrize(
    "values", [[0.5], [0.5, 0.5], [0.0, 0.0], [1e9, 1e-9], [0.9, 1e30, 0.8], [-3.0, -2.0]]
)
def test_everything_is_drawn_inside_the_picture(values: list[float]) -> None:
    svg = picture(progress_chart(values, metric=LOSS))
    numbers = [float(circle.attrib["cy"]) for circle in svg.findall("circle")]
    path = svg.find("path")
    assert path is not None
    numbers += [float(number) for number in re.findall(r"V([-\d.]+)", path.attrib["d"])]
    assert all(0 <= number <= 260 for number in numbers)
    assert 2 <= len(svg.findall("line")) <= 9


def test_a_hopeless_trial_does_not_flatten_the_curve() -> None:
    svg = picture(progress_chart([0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 1e6], metric=LOSS))
    heights = [float(circle.attrib["cy"]) for circle in svg.findall("circle")]
    assert heights[0] - heights[6] > 100


def test_a_search_of_any_length_makes_a_small_picture() -> None:
    assert len(progress_chart(list(np.random.default_rng(0).random(100_000)), metric=AUC)) < 200_000


def test_nothing_to_draw_is_said() -> None:
    for values in ([], [math.nan]):
        assert progress_chart(values, metric=AUC) == "<p>No trial has a value.</p>"
