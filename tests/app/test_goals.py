"""Objectives and limits as people write them."""

from __future__ import annotations

import pytest

from app.goals import SearchGoals, read_goals, read_limit, shown_limit, shown_measure, shown_unmet
from app.search.limits import Limit, Sense, Unmet
from pipelines.schema import Task


def goals(objective: str, *limits: str, task: Task = Task.BINARY) -> SearchGoals:
    return read_goals(objective, limits=limits, task=task)


def test_first_metric_selects_and_the_rest_are_objectives_beside_it() -> None:
    found = goals("val_auc,latency")
    assert found.objective.metric.name == "roc_auc"
    assert found.others == ("latency_ms",)
    assert goals("latency, Accuracy, brier").objective.metric.name == "accuracy"
    assert goals("latency, Accuracy, brier").others == ("latency_ms", "brier")
    assert goals("rmse", task=Task.REGRESSION).others == ()


@pytest.mark.parametrize("text", ["auto,parameters", "num_parameters", "params"])
def test_measures_alone_stand_beside_the_metric_of_the_task(text: str) -> None:
    found = goals(text)
    assert found.objective.metric.name == "roc_auc"
    assert found.others == ("num_parameters",)


def test_workers_measure_objectives_and_limits_once() -> None:
    found = goals("accuracy,latency", "latency<=5ms", "size_mb<=2", "f1>=0.5")
    assert found.measure == ("latency_ms", "size_bytes", "f1")


def test_limit_on_a_metric_is_turned_where_more_is_better_and_back() -> None:
    assert read_limit("val_acc >= 0.9", task=Task.BINARY) == Limit("accuracy", -0.9, Sense.AT_MOST)
    assert read_limit("log_loss<=0.3") == Limit("log_loss", 0.3)
    assert shown_limit(read_limit("accuracy>=0.9")) == "accuracy >= 0.9"
    assert shown_limit(read_limit("ece<=0.1")) == "ece <= 0.1"
    assert shown_limit(read_limit("size<=12MB")) == "size <= 12 MB"
    assert shown_limit(read_limit("parameters<2M")) == "parameters <= 2,000,000"


def test_measures_are_shown_in_their_units() -> None:
    assert shown_measure("latency_ms", 3.217) == "3.22 ms"
    assert shown_measure("num_parameters", 41000) == "41,000"
    assert shown_measure("accuracy", -0.93) == "0.93"


def test_unmet_limit_is_told_with_the_nearest_trial() -> None:
    text = shown_unmet(Unmet(Limit("accuracy", -0.99), num_trials=5, closest=-0.91, trial=3))
    assert text == (
        "none of the first 5 trials keeps the limit accuracy >= 0.99: the nearest is trial 3 with 0.91; the search "
        "goes on towards it"
    )


@pytest.mark.parametrize(
    ("objective", "limits", "message"),
    [
        ("latncy", (), "expected the name of a metric or a measure, got 'latncy'; did you mean 'latency'"),
        ("acuracy,latency", (), "got 'acuracy'; did you mean 'accuracy'"),
        ("qqqq", (), "got 'qqqq'; choose among accuracy, .*latency"),
        ("rmse", (), "expected a metric for a binary task, got 'rmse'; choose one of accuracy"),
        ("auc,roc_auc", (), "names 'roc_auc' twice; name it once"),
        ("auc,", (), "has an empty name; expected names with commas between"),
        ("auc", ("latensy<=5",), "no measure 'latensy'; did you mean 'latency'"),
        ("auc", ("rmse<=5",), "expected a metric for a binary task, got 'rmse'"),
        ("auc", ("accuracy>=high",), "ends in 'high'; expected a number"),
    ],
)
def test_what_cannot_be_meant_is_refused(objective: str, limits: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        goals(objective, *limits)
