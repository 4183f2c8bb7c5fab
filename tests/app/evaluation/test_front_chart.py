from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from app.evaluation.front_chart import FrontPicture, FrontPoint, front_chart
from app.evaluation.metrics import METRICS


def picture(*points: tuple[float, float, bool]) -> FrontPicture:
    return FrontPicture(
        measure="latency in milliseconds",
        points=[
            FrontPoint(trial=number, measure=measure, value=value, is_best=is_best)
            for number, (measure, value, is_best) in enumerate(points)
        ],
    )


def drawn(*points: tuple[float, float, bool]) -> str:
    return front_chart(picture(*points), metric=METRICS["accuracy"])


def test_the_best_compromises_are_numbered() -> None:
    found = drawn((1.0, 0.9, True), (2.0, 0.8, False), (3.0, 0.95, True))
    svg = ElementTree.fromstring(found[: found.index("</svg>") + 6])
    circles = [element for element in svg if element.tag == "circle"]
    assert sum(circle.get("class") == "trial" for circle in circles) == 1
    texts = [element.text for element in svg if element.tag == "text"]
    assert {"0", "2"} <= set(texts)
    assert "latency in milliseconds" in texts


def test_a_better_value_is_higher_and_a_longer_latency_is_further_right() -> None:
    found = drawn((1.0, 0.9, True), (3.0, 0.95, True))
    (x1, y1), (x2, y2) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', found)
    assert float(x1) < float(x2)
    assert float(y1) > float(y2)


def test_a_wide_range_is_drawn_by_its_logarithm() -> None:
    found = drawn((1.0, 0.9, True), (10.0, 0.9, True), (100.0, 0.9, True))
    x = [float(value) for value in re.findall(r'<circle cx="([\d.]+)"', found)]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)


def test_one_trial_is_drawn_and_none_is_said() -> None:
    assert "<svg" in drawn((1.0, 0.9, True))
    assert drawn((math.nan, 0.9, True)) == "<p>No trial has a value and a latency in milliseconds.</p>"
