"""A forecast of several series, from their rows to a served model and answers about what comes next."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

HORIZON = 2


def test_the_search_ends_with_an_export_and_is_held_against_the_season(forecast: Any) -> None:
    searched, _ = forecast
    assert searched.code == 0, searched.errors
    assert "windows: 14 steps known, 2 ahead" in " ".join(searched.output.split())
    evaluation = json.loads((searched.run / "best" / "evaluation.json").read_text())
    assert "seasonal-naive" in evaluation["baselines"]
    assert (searched.run / "export" / "sales" / "1" / "saved_model.pb").is_file()


def test_it_says_why_one_network_answers_alone(forecast: Any) -> None:
    assert "is exported alone: there are several targets." in " ".join(forecast[0].output.split())


def test_the_past_of_each_series_is_answered_with_its_next_steps(forecast: Any) -> None:
    _, answered = forecast
    assert answered.code == 0, answered.errors
    answers = pd.read_csv(answered.run.parent / "answers.csv")
    assert answers["shop"].tolist() == ["a", "b"]
    assert answers["last known"].tolist() == ["2022-05-30T00:00:00"] * 2
    ahead = answers[[f"sold_ahead_{step}" for step in range(1, HORIZON + 1)]]
    assert ahead.notna().all(axis=None)
    assert ahead.shape == (2, HORIZON)
