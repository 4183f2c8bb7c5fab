"""What every space of the catalogue for tables has to do, on every kind of table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.schema import Task
from search_spaces.catalogue import IMAGE_SPACES, SPACES
from search_spaces.context import TableContext

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

# What Keras and KerasTuner themselves are warned of by newer versions of NumPy and Python.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]

NUM_ROWS = 64
NUM_SAVED = 1
TABLES: dict[str, TableContext] = {
    "binary": TableContext(Task.BINARY, 2, 3, (4, 6), NUM_ROWS, 3),
    "multiclass": TableContext(Task.MULTICLASS, 4, 3, (4, 6), NUM_ROWS, 3),
    "regression": TableContext(Task.REGRESSION, 0, 3, (4, 6), NUM_ROWS, 3),
    "numbers only": TableContext(Task.BINARY, 2, 2, (), NUM_ROWS, 3),
    "categories only": TableContext(Task.MULTICLASS, 3, 0, (5,), NUM_ROWS, 3),
}

# What a space over families builds is built by these, so one table is enough for it.
WHOLE = sorted(set(SPACES) - IMAGE_SPACES - {"tabular"})
every_space_and_table = pytest.mark.parametrize(
    ("name", "table"),
    [
        pytest.param(name, table, id=f"{kind}-{name}")
        for name in (*WHOLE, "tabular")
        for kind, table in TABLES.items()
        if name in WHOLE or kind == "binary"
    ],
)


def make_rows(table: TableContext) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(4)
    features: dict[str, np.ndarray] = {}
    if table.num_numeric:
        features["numeric"] = rng.normal(size=(NUM_ROWS, table.num_numeric)).astype(np.float32)
    if table.cardinalities:
        ids = rng.integers(0, table.cardinalities, (NUM_ROWS, len(table.cardinalities)))
        features["categorical"] = ids.astype(np.int32)
    if table.num_classes:
        return features, rng.integers(0, table.num_classes, (NUM_ROWS, 1)).astype(np.int32)
    return features, rng.normal(size=(NUM_ROWS, 1)).astype(np.float32)


@every_space_and_table
def test_random_configurations_build_train_and_come_back_from_disk(
    name: str, table: TableContext, tmp_path: Path
) -> None:
    import keras

    from app.training.declaration import declare, hyperparameters
    from search_spaces.user_space import load_space

    space = load_space(name, table)
    declared = declare(space)
    features, y = make_rows(table)
    rng = np.random.default_rng(5)
    # A network costs a second; the other tables differ in inputs and head alone.
    for number in range(3 if table.task is Task.BINARY and table.cardinalities else 1):
        configuration = declared.sample(rng)
        hp = hyperparameters(configuration)
        model = space.build(hp)
        # Nothing that is inactive has a value, and the build asked for nothing else.
        assert set(hp.values) == set(configuration) == {n for n in declared.names if declared.is_active(n, hp.values)}
        before = [np.asarray(variable) for variable in model.trainable_variables]
        # The first step of a schedule may have a rate of zero.
        for _ in range(2):
            model.train_step((features, y))
        assert any((old != np.asarray(new)).any() for old, new in zip(before, model.trainable_variables, strict=True))
        output = np.asarray(model(features, training=False))
        assert output.shape == (NUM_ROWS, table.num_outputs)
        assert output.dtype == np.float32
        assert np.isfinite(output).all()
        if number >= NUM_SAVED:
            continue
        path = tmp_path / f"{number}.keras"
        model.save(path)
        loaded: Any = keras.models.load_model(path, safe_mode=True)
        np.testing.assert_array_equal(np.asarray(loaded(features, training=False)), output)
    keras.backend.clear_session()


@pytest.mark.parametrize("name", ["tabm", "tabular"])
def test_a_space_works_in_keras_tuner_itself(name: str, tmp_path: Path) -> None:
    import keras_tuner

    from search_spaces.user_space import load_space

    table = TABLES["binary"]
    features, y = make_rows(table)
    small = keras_tuner.HyperParameters()
    small.Fixed("family", "mlp")
    for depth in ("depth", "num_blocks"):
        small.Fixed(depth, 1)
    tuner = keras_tuner.RandomSearch(
        load_space(name, table),
        objective="val_loss",
        max_trials=1,
        seed=1,
        hyperparameters=small,
        directory=tmp_path,
        project_name="kt",
    )
    tuner.search(features, y, validation_data=(features, y), epochs=1, verbose=0)
    (trial,) = tuner.oracle.get_best_trials()
    assert np.isfinite(trial.score)
