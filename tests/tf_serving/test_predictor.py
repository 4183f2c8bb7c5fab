from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.schema import Task

ODD = {"a b": "float", "größe (cm)": "float", "1st": "integer", "x/y:0": "text", "A B": "float", "a_b": "float"}


@pytest.fixture(scope="session")
def predictor(exported: Path) -> Any:
    from tf_serving.predictor import SavedModelPredictor

    return SavedModelPredictor(exported)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], Any]:
    """Exports a model of any columns and loads it."""

    def export(model: Any) -> Any:
        from tf_serving.export import export_saved_model
        from tf_serving.predictor import SavedModelPredictor

        return SavedModelPredictor(
            export_saved_model(
                model.answer,
                track=model.track,
                schema=model.schema,
                directory=tmp_path / "odd",
                sample=model.raw,
                extra_files={},
            )
        )

    return export


def repeated(raw: dict[str, Any], num_rows: int) -> dict[str, Any]:
    return {name: np.resize(column, num_rows) for name, column in raw.items()}


def test_the_answers_are_those_of_the_keras_model(predictor: Any, penguins: Any) -> None:
    answers, expected = predictor.predict(penguins.raw), penguins.expected(penguins.raw)
    assert set(answers) == {"probabilities", "label"}
    np.testing.assert_allclose(answers["probabilities"], expected["probabilities"], atol=1e-6)
    assert answers["label"].tolist() == [label.decode() for label in expected["label"]]


def test_text_comes_as_str(predictor: Any, penguins: Any) -> None:
    assert {type(label) for label in predictor.predict(penguins.raw)["label"]} == {str}


@pytest.mark.parametrize("num_rows", [1, 6, 7, 8, 14, 20])
def test_chunks_change_nothing(
    predictor: Any, penguins: Any, monkeypatch: pytest.MonkeyPatch, num_rows: int
) -> None:
    raw = repeated(penguins.raw, num_rows)
    whole = predictor.predict(raw)
    monkeypatch.setattr("tf_serving.predictor.CHUNK_ROWS", 7)
    in_chunks = predictor.predict(raw)
    assert len(in_chunks["label"]) == num_rows
    np.testing.assert_allclose(in_chunks["probabilities"], whole["probabilities"], atol=1e-6)
    assert in_chunks["label"].tolist() == whole["label"].tolist()


def test_more_rows_than_a_chunk_keep_their_order(predictor: Any, penguins: Any) -> None:
    from tf_serving.predictor import CHUNK_ROWS

    answers = predictor.predict(repeated(penguins.raw, CHUNK_ROWS + 40))
    first = predictor.predict(repeated(penguins.raw, 40))
    shift = CHUNK_ROWS % 40  # the rows are the same 40 over and over
    expected = np.roll(first["probabilities"], -shift, axis=0)
    np.testing.assert_allclose(answers["probabilities"][CHUNK_ROWS:], expected, atol=1e-6)


def test_no_rows_give_empty_answers_of_the_same_shape(predictor: Any, penguins: Any) -> None:
    answers = predictor.predict({name: column[:0] for name, column in penguins.raw.items()})
    assert answers["probabilities"].shape == (0, 3)
    assert answers["label"].shape == (0,)


def test_missing_values_get_an_answer(predictor: Any) -> None:
    raw = {
        "island": np.array([b""], dtype=object),
        "bill length": np.array([np.nan], dtype=np.float32),
        "body_mass": np.array([np.nan], dtype=np.float32),
    }
    assert predictor.predict(raw)["probabilities"].sum() == pytest.approx(1.0, abs=1e-5)


def test_column_names_need_not_be_names_of_arguments(
    model_of: Callable[..., Any], load: Callable[[Any], Any]
) -> None:
    model = model_of(ODD)
    answers = load(model).predict(model.raw)
    np.testing.assert_allclose(answers["probabilities"], model.expected(model.raw)["probabilities"], atol=1e-6)


def test_a_regression_answers_numbers(model_of: Callable[..., Any], load: Callable[[Any], Any]) -> None:
    model = model_of({"size": "float", "town": "text"}, task=Task.REGRESSION)
    answers = load(model).predict(model.raw)
    assert list(answers) == ["prediction"]
    assert answers["prediction"].dtype == np.float32
    np.testing.assert_allclose(answers["prediction"], model.expected(model.raw)["prediction"], rtol=1e-5)
