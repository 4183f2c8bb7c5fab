from __future__ import annotations

import dataclasses
import math
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from app.evaluation.leaderboard import TrialRow, leaderboard
from app.evaluation.metrics import METRICS, Predictions
from app.evaluation.report import (
    DataSummary,
    NextCommand,
    ReportContent,
    ReportFinding,
    ReportWinner,
    escape,
    render_report,
)
from app.evaluation.sealed_test import SealedTestReport, report_sealed_test
from pipelines.schema import Task

HOSTILE = "</td><script>alert('x')</script><img src=x onerror=alert(1)> \"quoted\" & {braces}"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; says whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def sealed_test(classes: tuple[str, ...] = ("no", "yes")) -> SealedTestReport:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, size=120)
    score = np.clip(0.3 * y + 0.7 * rng.random(120), 0, 1)
    model = Predictions(task=Task.BINARY, y=y, probabilities=np.stack([1 - score, score], axis=1))
    constant = dataclasses.replace(model, probabilities=np.full((120, 2), 0.5))
    return report_sealed_test(
        model, baselines={"constant": constant}, objective=METRICS["roc_auc"], classes=classes, seed=0
    )


def content(text: str = "credit", **changes: Any) -> ReportContent:
    rows = [
        TrialRow(trial=0, status="completed", value=0.81, epochs=7, parameters=1234, seconds=3.0,
                 hyperparameters={"depth": 2, text: text}),
        TrialRow(trial=1, status="failed", hyperparameters={"depth": 9}, reason=text),
    ]  # fmt: skip
    full = ReportContent(
        name=text,
        data=DataSummary(
            source=text,
            target=text,
            task="binary",
            num_features=5,
            num_rows=1000,
            num_train=700,
            num_validation=150,
            num_test=150,
        ),
        objective=METRICS["roc_auc"],
        algorithm=f"bayesian: {text}",
        seconds=125.0,
        leaderboard=leaderboard(rows, metric=METRICS["roc_auc"]),
        progress=[0.81, math.nan],
        findings=[ReportFinding(severity="warning", message=text)],
        winner=ReportWinner(trial=0, hyperparameters={"depth": 2, text: text}, epochs=7, parameters=1234),
        test=sealed_test((text, "yes")),
        commands=[NextCommand(command=f"tamiz predict {text}", purpose="Predict")],
    )
    return dataclasses.replace(full, **changes)


def test_the_page_holds_every_part() -> None:
    page = Page(render_report(content()))
    assert page.open == []
    for part in (
        "credit",
        "Sealed test",
        "Confusion matrix",
        "Winner: trial 0",
        "Leaderboard (2 trials)",
        "Findings in the data",
        "tamiz predict credit",
        "2 min 5 s",
        "700 to train",
        "1,234",
        "0.81",
        "constant baseline",
        "Bold: the objective of the search",
        "By roc_auc the model is better than the constant",
    ):
        assert part in page.text, part
    assert "svg" in page.tags


def test_what_is_exported_and_what_was_wanted_beside_the_objective_are_told() -> None:
    found = content(others=("latency_ms",), export={"Latency": "2.3 ms"}, final="The winner was not trained again.")
    page = Page(render_report(found))
    for part in ("Beside itlatency_ms", "Exported model", "Latency2.3 ms", "The winner was not trained again."):
        assert part in page.text, part
    assert "Exported model" not in Page(render_report(content())).text


def test_hostile_text_stays_text() -> None:
    page = Page(render_report(content(HOSTILE)))
    assert page.open == []
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # Name (twice: title and heading), source, target, algorithm, finding, winner's name and value, column and value
    # of the leaderboard, reason, two heads of the confusion matrix, command.
    assert page.text.count(HOSTILE) == 14


def test_the_page_needs_nothing_from_outside() -> None:
    page = Page(render_report(content()))
    assert not {"link", "script", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_is_readable_in_light_and_dark() -> None:
    text = render_report(content())
    assert "color-scheme: light dark" in text
    assert "@media (prefers-color-scheme: dark)" in text


def test_parts_that_do_not_exist_are_left_out() -> None:
    empty = leaderboard([], metric=METRICS["roc_auc"])
    page = Page(
        render_report(
            content(test=None, winner=None, commands=(), findings=(), progress=[], leaderboard=empty)
        )
    )
    assert page.open == []
    assert "Sealed test" not in page.text
    assert "Winner" not in page.text
    assert "Next" not in page.text
    assert "Nothing remarkable." in page.text
    assert "No trial has a value." in page.text


def test_a_long_leaderboard_is_cut() -> None:
    rows = [TrialRow(trial=i, status="completed", value=i / 100, hyperparameters={}) for i in range(60)]
    text = render_report(content(leaderboard=leaderboard(rows, metric=METRICS["roc_auc"]), test=None))
    assert "and 10 more in the journal" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a<b & 'c'", "a&lt;b &amp; &#x27;c&#x27;"),
        ("x\x00y\ud800z\u202e", "x\ufffdy\ufffdz\ufffd"),
        ("größe\u00a0漢字 🙂", "größe\u00a0漢字 🙂"),
    ],
)
def test_escape_keeps_text_and_replaces_what_no_page_may_hold(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    escape(text).encode()
