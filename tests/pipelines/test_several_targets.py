"""Several target columns: labels, several numbers, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.raw_columns import encode_target
from pipelines.schema import TargetSpec, Task
from pipelines.several_targets import infer_targets, known_targets, target_columns
from pipelines.splits import Split, assign_folds, assign_splits

NUM_ROWS = 400


def table(**changes: object) -> pa.Table:
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {
        "x": rng.normal(size=NUM_ROWS),
        "rain": np.array(["no", "yes"])[(rng.random(NUM_ROWS) < 0.3).astype(int)],
        "snow": (rng.random(NUM_ROWS) < 0.04).astype(int),
        "wind": rng.random(NUM_ROWS) < 0.5,
        "low": rng.normal(size=NUM_ROWS),
        "high": rng.normal(100.0, 20.0, NUM_ROWS),
        "kind": np.array(["a", "b", "c"])[rng.integers(0, 3, NUM_ROWS)],
    }
    return pa.table(columns | changes)


LABELS = ("rain", "snow", "wind")


def test_columns_of_two_values_are_labels() -> None:
    found = infer_targets(table(), LABELS)
    assert (found.task, found.name, found.classes) == (Task.MULTILABEL, "rain, snow, wind", LABELS)
    assert found.label_values == (("no", "yes"), ("0", "1"), ("false", "true"))
    assert TargetSpec.from_json(found.to_json()) == found
    encoded = encode_target(table(), found)
    assert encoded.shape == (NUM_ROWS, 3)
    np.testing.assert_array_equal(encoded[:, 0], table().column("rain").to_numpy(zero_copy_only=False) == "yes")


def test_columns_of_numbers_are_several_regressions() -> None:
    found = infer_targets(table(), ("low", "high"))
    assert (found.task, found.columns, found.num_classes if hasattr(found, "num_classes") else 0) == (
        Task.REGRESSION, ("low", "high"), 0
    )  # fmt: skip
    np.testing.assert_array_equal(encode_target(table(), found)[:, 1], table().column("high").to_numpy())


def test_yes_is_what_holds_whatever_the_alphabet_says() -> None:
    rows = np.arange(NUM_ROWS)
    words = table(snow=np.where(rows % 3 == 0, "T", "f"), rain=np.where(rows % 2, "n", "Y"))
    assert infer_targets(words, ("rain", "snow")).label_values == (("n", "Y"), ("f", "T"))


def test_names_with_commas_between_them_are_several_columns() -> None:
    assert target_columns(table(), " rain , snow") == ("rain", "snow")
    assert target_columns(table(), "rain") == ("rain",)
    assert target_columns(pa.table({"a,b": [1], "c": [1]}), "a,b") == ("a,b",)


def test_rows_without_one_of_the_targets_are_left_out_with_a_note() -> None:
    low = pa.array([None, None, *range(NUM_ROWS - 2)], pa.float64())
    known, note = known_targets(table(low=low), ("low", "high"))
    assert known.tolist() == [False, False, *[True] * (NUM_ROWS - 2)]
    assert note == "2 of 400 rows have no value in all of 'low', 'high' and were left out."
    assert known_targets(table(), ("low", "high"))[1] is None


@pytest.mark.parametrize("names", [LABELS, ("low", "high")])
def test_rows_are_spread_over_the_parts_by_the_rarest_label_or_the_size(names: tuple[str, ...]) -> None:
    target = infer_targets(table(), names)
    splits = assign_splits(table(), target, seed=1)
    values = encode_target(table(), target).astype(float)
    for split in Split:
        rows = values[splits == split]
        assert abs(len(rows) / NUM_ROWS - (0.7 if split is Split.TRAIN else 0.15)) < 0.03
        if target.task is Task.MULTILABEL:
            assert rows[:, 1].sum() >= 1  # the rare label is in every part
    folds = assign_folds(table(), target, seed=1, num_folds=4)
    assert np.bincount(folds).min() > 80


def test_the_targets_are_no_part_of_a_rows_identity() -> None:
    target = infer_targets(table(), LABELS)
    other = table().set_column(2, "snow", pa.array(1 - table().column("snow").to_numpy()))
    splits = assign_splits(pa.concat_tables([table(), other]), target, seed=1)
    # The strata differ, so that a few at the edges do; with another identity it would be half of the rows.
    assert (splits[:NUM_ROWS] == splits[NUM_ROWS:]).mean() > 0.9


# Bad input


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("rain,sno", r"no target column 'sno'\. Did you mean 'snow'\?"),
        ("rain,rain", "The target names 'rain' twice; name each column once"),
    ],
)
def test_columns_that_are_none_are_refused(target: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        target_columns(table(), target)


def test_a_target_with_the_name_of_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match=r"'label' has the name of an answer \(probabilities, prediction.*rename the"):
        target_columns(pa.table({"label": [1], "b": [1], "c": [1]}), "label,b")


@pytest.mark.parametrize("target", ["rain", "rain,snow"])
def test_targets_alone_are_refused(target: str) -> None:
    alone = pa.table({name: [1, 2] for name in target.split(",")})
    with pytest.raises(DataError, match=f"no column besides the target '{target}'; add columns to predict it from"):
        target_columns(alone, target)


@pytest.mark.parametrize("names", [("rain", "high"), ("kind", "rain")])
def test_targets_of_different_kinds_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"to be all numbers or all of two values, received .*in a search of their own"):
        infer_targets(table(), names)


def test_a_label_that_hardly_holds_is_refused() -> None:
    rare = table(snow=(np.arange(NUM_ROWS) < 3).astype(int) * (np.arange(NUM_ROWS) != 1))
    with pytest.raises(DataError, match=r"rows of every class.*class '1' of 'snow' has 2 rows"):
        infer_targets(rare, LABELS)


def test_several_targets_make_no_multiclass_task() -> None:
    with pytest.raises(DataError, match="Expected multilabel or regression as the task of several targets, received m"):
        infer_targets(table(), LABELS, task=Task.MULTICLASS)
    with pytest.raises(DataError, match="The target 'low' is missing in all 400 rows"):
        known_targets(table(low=pa.nulls(NUM_ROWS, pa.float64())), ("low", "high"))
