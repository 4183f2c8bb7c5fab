"""A file answered in small chunks, into every kind of place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app.errors import ConfigError
from app.experiment import Experiment, load
from app.prediction import BatchSettings
from pipelines.errors import DataError
from tf_serving.answer_table import AnswerTable

SMALL = BatchSettings(chunk_rows=100)


@pytest.fixture(scope="module")
def experiment(finished: Any) -> Iterator[Experiment]:
    with load(finished.run) as found:
        yield found


@pytest.fixture
def birds(penguins: pd.DataFrame, tmp_path: Path) -> Path:
    """The penguins with two keys: whole numbers, and codes that only look like numbers at first."""
    path = tmp_path / "birds.csv"
    codes = [f"{row}" if row < 200 else f"B{row}" for row in range(len(penguins))]
    penguins.assign(ring=range(len(penguins)), code=codes).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_chunks_give_the_answers_of_the_whole(
    experiment: Experiment, penguins: pd.DataFrame, birds: Path, tmp_path: Path, name: str
) -> None:
    whole = experiment.predict(penguins)
    settings = BatchSettings(chunk_rows=100, key="ring")
    assert experiment.predict_file(birds, output=tmp_path / name, settings=settings) == len(penguins)
    written = pd.read_parquet(tmp_path / name) if name.endswith("parquet") else pd.read_csv(tmp_path / name)
    assert written.pop("ring").tolist() == list(range(len(penguins)))
    pd.testing.assert_frame_equal(written, whole, check_dtype=False, atol=1e-6)


def test_answers_are_looked_up_by_key(experiment: Experiment, penguins: pd.DataFrame, birds: Path) -> None:
    place = f"{birds.parent / 'answers.db'}#birds"
    experiment.predict_file(birds, output=place, settings=BatchSettings(key="ring", chunk_rows=100))
    table = AnswerTable(place, key="ring")
    answer, absent = table.look_up(["17", 1_000_000])
    table.close()
    assert absent is None
    assert answer is not None
    expected = experiment.predict(penguins).iloc[17]
    assert answer["label"] == expected["label"]
    assert answer["probability of Adelie"] == pytest.approx(expected["probability of Adelie"], abs=1e-6)


def test_json_lines_may_leave_out_what_was_missing_in_training(
    experiment: Experiment, penguins: pd.DataFrame, tmp_path: Path
) -> None:
    rows = penguins.head(120)
    rows.drop(columns="sex").to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    expected = experiment.predict(rows.assign(sex=None))
    pd.testing.assert_frame_equal(experiment.predict(tmp_path / "rows.jsonl"), expected, atol=1e-6)
    experiment.predict_file(tmp_path / "rows.jsonl", output=tmp_path / "out.parquet", settings=SMALL)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected, atol=1e-6)
    rows.drop(columns="island").to_json(tmp_path / "less.jsonl", orient="records", lines=True)
    for data in (tmp_path / "less.jsonl", rows.drop(columns="sex")):
        with pytest.raises(DataError, match=r"The data has no column '(island|sex)'"):
            experiment.predict(data)


def test_rows_in_error_are_found_in_the_file(experiment: Experiment, penguins: pd.DataFrame, tmp_path: Path) -> None:
    frame = penguins.astype({"bill_length_mm": object})
    frame.loc[250, "bill_length_mm"] = "long"
    frame.to_csv(tmp_path / "wrong.csv", index=False)
    message = r"In the rows 201 to 300 of .*wrong.csv': Expected a number in column .* received 'long' in row 51"
    with pytest.raises(DataError, match=message):
        experiment.predict_file(tmp_path / "wrong.csv", output=tmp_path / "out.csv", settings=SMALL)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("rong", "no key column 'rong'. Did you mean 'ring'"),
        ("code", "Expected whole numbers in the key column 'code', as in the first rows"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(experiment: Experiment, birds: Path, key: str, message: str) -> None:
    place = birds.parent / "answers.db"
    with pytest.raises(DataError, match=message):
        experiment.predict_file(birds, output=place, settings=BatchSettings(key=key, chunk_rows=100))
    assert not place.exists()


def test_a_key_named_as_an_answer_is_refused(experiment: Experiment, birds: Path) -> None:
    pd.read_csv(birds).rename(columns={"ring": "label"}).to_csv(birds, index=False)
    with pytest.raises(DataError, match="The key 'label' has the name of an answer; rename the column"):
        experiment.predict_file(birds, output=birds.with_name("out.csv"), settings=BatchSettings(key="label"))


def test_chunks_without_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="chunk_rows is 0: expected at least 1"):
        BatchSettings(chunk_rows=0)
