"""One search on columns of every awkward kind, with weights and intervals; then hostile rows through its SavedModel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tamiz
from app.run_directory import read_json
from app.search_progress import read_progress

NUM_ROWS = 600
WORDS = ("quiet", "sunny", "garden", "balcony", "station", "noisy", "renovated", "cellar", "harbour")


def flats() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    street = rng.integers(0, 60, NUM_ROWS)
    size = rng.lognormal(4.0, 0.9, NUM_ROWS)
    return pd.DataFrame(
        {
            "street": [f"street {number}" for number in street],
            "text": [" ".join(rng.choice(WORDS, rng.integers(5, 12))) for _ in range(NUM_ROWS)],
            "visits": (size * rng.lognormal(0.0, 0.5, NUM_ROWS)).astype(int),
            "seen": pd.date_range("2020-01-01", periods=NUM_ROWS, freq="7h").astype(str),
            "nothing": np.full(NUM_ROWS, np.nan),
            "count": rng.integers(1, 4, NUM_ROWS),
            "rent": 400.0 + 10.0 * street + size + rng.normal(0.0, 30.0, NUM_ROWS),
        }
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tamiz.Experiment]:
    folder = tmp_path_factory.mktemp("flats")
    (folder / "short.toml").write_text("[training]\nmax_epochs = 4\n")
    with tamiz.search(
        flats(), target="rent", weight="count", interval=0.8, trials=2, folds=1, space="mlp",
        run=folder / "flats", config=folder / "short.toml", verbose=False,
    ) as found:  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def serve(experiment: tamiz.Experiment) -> Any:
    """The exported model on raw columns, by TensorFlow alone."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(experiment.saved_model)).signatures["serving_default"]
    row = flats().iloc[0]
    usual = {
        feature.name: [float(row[feature.name]) if feature.raw_type == "float32" else str(row[feature.name])]
        for feature in experiment.schema.used_features
    }

    def answer(**changes: Any) -> dict[str, float]:
        columns = {name: tf.constant(value) for name, value in (usual | changes).items()}
        return {name: float(tensor[0]) for name, tensor in signature(**columns).items()}

    return answer


def test_columns_are_read_by_rule(experiment: tamiz.Experiment) -> None:
    kinds = {feature.name: feature.kind.value for feature in experiment.schema.used_features}
    assert kinds == {"street": "categorical", "text": "text", "visits": "numeric", "seen": "datetime"}
    street = next(feature for feature in experiment.schema.features if feature.name == "street")
    assert street.target_encoded
    state = read_json(experiment.directory.preprocessing_file)
    assert state["numeric"][0]["scaling"] == "log"
    assert state["targets"][0]["outputs"] == ["rent"]
    assert experiment.schema.weight == "count"


def test_the_sealed_test_states_and_measures_the_coverage(experiment: tamiz.Experiment) -> None:
    report = experiment.test_report
    coverage = report.estimate("coverage")
    assert coverage is not None
    assert coverage.low is not None
    assert 0.5 < coverage.value <= 1.0
    notes = " ".join(report.notes)
    assert "Intervals should hold 80% of the rows and held" in notes
    assert "Metrics and intervals count each row by its 'count'" in notes
    assert report.objective == "pinball"


def test_the_winner_is_not_trained_again_on_the_same_rows(experiment: tamiz.Experiment) -> None:
    stages = read_progress(experiment.directory).stages
    assert stages["final"]["of_trial"]


def test_answers_have_both_ends(experiment: tamiz.Experiment) -> None:
    answers = experiment.predict(flats().drop(columns=["rent", "count"]).head(50))
    assert list(answers.columns) == ["prediction", "lower", "upper"]
    assert (answers["lower"] <= answers["prediction"]).all()
    assert (answers["prediction"] <= answers["upper"]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"street": ["a street that was never seen"]},
        {"street": [""]},
        {"text": [""]},
        {"text": ["palabras de otra lengua \u65e5\u672c"]},
        {"visits": [float("nan")]},
        {"visits": [1e30]},
        {"seen": ["not a date"]},
        {"street": [""], "text": [""], "visits": [float("nan")], "seen": [""]},
    ],
    ids=["unseen", "no category", "no text", "foreign", "no number", "huge", "no date", "nothing at all"],
)
def test_the_saved_model_answers_what_training_never_had(serve: Any, changes: dict[str, Any]) -> None:
    answer = serve(**changes)
    assert set(answer) == {"prediction", "lower", "upper"}
    assert all(np.isfinite(list(answer.values())))
    assert answer["lower"] <= answer["prediction"] <= answer["upper"]
    if "visits" not in changes:
        assert answer != serve()


def test_all_unseen_categories_answer_alike(serve: Any) -> None:
    assert serve(street=["never seen"]) == serve(street=["nor this"])


def test_numbers_that_arrive_as_text_are_read_or_refused(experiment: tamiz.Experiment) -> None:
    rows = flats().drop(columns=["rent", "count"]).head(3)
    plain = experiment.predict(rows)
    written = experiment.predict(rows.assign(visits=rows["visits"].astype(str)))
    pd.testing.assert_frame_equal(plain, written)
    with pytest.raises(tamiz.DataError, match=r"Expected a number in column 'visits', received 'many' in row 2"):
        experiment.predict(rows.assign(visits=["1", "many", "3"]))


def test_a_column_without_any_value_is_answered(experiment: tamiz.Experiment) -> None:
    rows = flats().drop(columns=["rent", "count"]).head(3)
    answers = experiment.predict(rows.assign(visits=np.nan, text=None))
    assert np.isfinite(answers.to_numpy()).all()


def test_everything_is_on_the_model_card(experiment: tamiz.Experiment) -> None:
    card = (Path(experiment.saved_model) / "assets.extra" / "model_card.md").read_text()
    assert "80% of the rows" in card
    assert "hashed to 4,096 buckets" in card
    assert "mean target of each" in card
