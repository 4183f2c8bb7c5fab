"""The networks of a trial's folds, in one model that takes raw columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import Balance, DataConfig, ExperimentConfig, SearchConfig
from app.data_files import FOLD_COLUMN, read_arrow, write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.evaluation.metrics import METRICS
from app.run_directory import RunDirectory
from app.search.space import Float, Space
from app.training.kept_predictions import kept_predictions
from pipelines.raw_columns import raw_columns

FOLDS = 2

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),
]


@pytest.fixture(scope="module")
def bagged(placement: Any, make_frame: Any, network_values: Any, tmp_path_factory: Any) -> Any:
    """A trial of two folds, exported as the average of its networks."""
    from app.execution.ensemble_builder import EnsembleBuilder
    from app.execution.messages import EnsembleMember, SaveEnsemble
    from app.training.epochs import Verdict
    from app.training.final_model import train_final_model
    from app.training.fold_data import load_folds
    from app.training.fold_trainer import FoldTrainer
    from app.training.measuring import ModelMeasurer
    from app.training.trainer import Trainer
    from app.training.trial_data import load_trial_data

    config = ExperimentConfig(data=DataConfig(target="outcome"), search=SearchConfig(folds=FOLDS))
    directory = RunDirectory(tmp_path_factory.mktemp("bagged"))
    frame = make_frame("regression")
    # Only one row misses its age: a fold that holds it out has no column for that.
    frame["age"] = frame["age"].astype(float)
    frame.loc[frame.index[3], "age"] = np.nan
    write_data(prepare_data(read_source(frame, config), config), config, directory=directory)
    data = load_trial_data(directory, balance=Balance.AUTO)
    trainer = Trainer(
        data, space_name="mlp", objective=METRICS["rmse"], placement=placement, max_epochs=2, patience=9
    )
    folds = FoldTrainer(trainer, load_folds(directory, data))
    values = network_values(depth=1, residual=None, width=8)
    settings: dict[str, Any] = {"report": lambda _: None, "ask": lambda: Verdict.GO_ON}
    known = Space([Float("x", 0.0, 1.0)])
    folds.train_trial(values, known=known, budget=FOLDS, seed=3, state=directory.trial_state(4), **settings)
    single, _ = train_final_model(trainer, directory, values=values, epochs=1, seed=5, **settings)
    builder = EnsembleBuilder(
        trainer, folds.parts, directory=directory, measurer=ModelMeasurer(trainer, directory, measures=())
    )
    member = EnsembleMember(trial=4, hyperparameters=values, weight=1.0)
    request = SaveEnsemble(
        members=(member,), winner=4, temperature=1.0, single_temperature=1.0, deadline=math.inf
    )
    return folds, builder.build(request, single)[0]


def test_each_network_answers_raw_rows_as_it_did_the_rows_held_out(bagged: Any) -> None:
    _, final = bagged
    table = read_arrow(final.directory.development_file)
    raw = raw_columns(table, final.trainer.data.schema)
    y = final.trainer.data.development.y
    assert len(final.exported.networks) == FOLDS
    for fold, network in enumerate(final.exported.networks, start=1):
        kept = kept_predictions(final.directory.trial_state(4) / f"fold-{fold}")
        encoded = {name: np.asarray(a) for name, a in final.encoders[fold].encode_in_batches(raw).items()}
        alone = type(final.exported)(networks=(network,), temperature=1.0, context=final.exported.context)
        answered = alone.predicted({fold: encoded})["values"]
        held_out = table.column(FOLD_COLUMN).to_numpy() == fold - 1
        np.testing.assert_allclose(answered[held_out], kept.values, rtol=1e-5)
        wrong = alone.predicted({fold: final.encoders[0].encode_in_batches(raw)})["values"]
        assert np.abs(wrong - answered).max() > 1e-4 * np.ptp(y)


def test_the_exported_graph_averages_the_folds_on_raw_rows(bagged: Any) -> None:
    import tensorflow as tf

    from app.training.final_model import encoded_by, load_final_model

    _, final = bagged
    raw = raw_columns(read_arrow(final.directory.test_file), final.trainer.data.schema)
    columns = {
        name: tf.constant(column, tf.string if column.dtype == object else tf.float32) for name, column in raw.items()
    }
    expected = final.exported.expected({fold: final.encoders[fold].encode_in_batches(raw) for fold in (1, 2)})
    for one in (final, load_final_model(final.trainer, final.directory)):
        assert sorted(one.encoders) == [0, 1, 2]
        encodings = encoded_by(one.encoders, one.exported.folds, columns)
        np.testing.assert_allclose(one.exported.answer(encodings)["prediction"], expected["prediction"], rtol=1e-5)
    tested, _, single = final.open_test()
    np.testing.assert_allclose(tested.values, expected["prediction"], rtol=1e-5)
    assert single is not None


def test_the_export_keeps_what_it_says(bagged: Any) -> None:
    _, final = bagged
    staged, cases = final.export({})
    assert cases.is_file()
    assert (Path(staged) / "saved_model.pb").is_file()
