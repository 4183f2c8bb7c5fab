from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_serving.model_card import CardData, CardInput, CardMetric, ModelCard, escape, model_card


def card(*, column: str = "bill length", value: object = 39.1) -> ModelCard:
    return ModelCard(
        name="penguins",
        task="multiclass",
        data=CardData(
            source="penguins.csv",
            num_rows=344,
            num_columns=8,
            target="species",
            classes=("Adelie", "Gentoo"),
            splits={"train": 240, "test": 52},
            protocol="Stratified by species.",
        ),
        metrics=[CardMetric(name="accuracy", value=0.987, low=0.95, high=1.0, baselines={"constant": 0.44})],
        inputs=[CardInput(name=column, dtype="float32", kind="numeric")],
        outputs={"probabilities": "probability of each class", "label": "the most probable class"},
        preprocessing=("Missing numbers become the median.",),
        limits=("Three islands only.",),
        versions={"tensorflow": "2.21.0"},
        sample_instance={column: value},
    )


def test_the_card_tells_what_a_user_of_the_model_asks() -> None:
    text = model_card(card())
    for part in (
        "# penguins\n",
        "Rows: 344; columns: 8; target: species",
        "Classes: Adelie, Gentoo",
        "Splits: train 240, test 52",
        "| accuracy | 0.987 | 0.95 to 1 | 0.44 |",
        "| bill length | float32 | numeric |",
        "- Missing numbers become the median.",
        "- Three islands only.",
        "| tensorflow | 2.21.0 |",
        'POST http://localhost:8501/v1/models/penguins:predict\n{"instances": [{"bill length": 39.1}]}',
        "--input_exprs 'bill length=[39.1]'",
    ):
        assert part in text


@pytest.mark.parametrize("column", ["a|b", "*x*", "[l](http://x)", "<b>", "# h", "x\ny", "`c`", "$1 & $2", "a_b"])
def test_a_column_name_cannot_change_the_structure(column: str) -> None:
    lines = model_card(card(column=column)).splitlines()
    row = f"| {escape(column)} | float32 | numeric |"
    assert row in lines
    assert row.replace("\\|", "").count("|") == 4


@given(st.text(max_size=20))
def test_escaped_text_is_one_line_without_bare_markup(text: str) -> None:
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    for mark in "`*_[]<>#|~$&":
        assert bare.count(mark) == bare.count(f"\\{mark}")


@pytest.mark.parametrize(("text", "expected"), [("- x", "\\- x"), ("1. x", "1\\. x"), ("2.21", "2.21"), ("-5", "-5")])
def test_escaped_text_begins_no_list(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_a_fence_is_longer_than_the_backticks_inside() -> None:
    assert "`````\nPOST" in model_card(card(column="````"))


def test_the_command_line_is_quoted_for_the_shell() -> None:
    assert """--input_exprs 'it'"'"'s=[1.0]'""" in model_card(card(column="it's", value=1.0))


def test_a_missing_number_becomes_a_literal_on_the_command_line() -> None:
    text = model_card(card(value=float("nan")))
    assert '{"bill length": NaN}' in text
    assert "'bill length=[0.0]'" in text


def test_a_card_without_a_row_points_to_the_sample_request() -> None:
    text = model_card(replace(card(), sample_instance={}))
    assert "curl -d @assets.extra/sample_request.json http://localhost:8501/v1/models/penguins:predict" in text
    assert "saved_model_cli" not in text


def test_a_metric_without_an_interval_leaves_its_cell_empty() -> None:
    metric = CardMetric(name="accuracy", value=0.5, low=None, high=None)
    assert "| accuracy | 0.5 |  |" in model_card(replace(card(), metrics=[metric]))


@pytest.mark.parametrize("column", ["a=b", "a;b"])
def test_no_command_is_shown_for_names_it_cannot_carry(column: str) -> None:
    assert "saved_model_cli" not in model_card(card(column=column))
