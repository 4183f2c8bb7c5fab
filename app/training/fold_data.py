"""The rows of every fold, encoded with what its own training rows taught (R5), in the shape of all rows' encoding.

Trials are compared over folds and the winner is trained on all rows, so the networks of all folds take the input that
the final one takes: a column that a fold's training rows do not call for (such as the indicator of a value that is
missing only among its held-out rows) is there and always zero. One graph then serves all folds of a trial.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.data_stage import FOLD_COLUMN, read_arrow
from app.evaluation.baselines import EncodedRows
from app.run_directory import RunDirectory, read_json
from app.training.trial_data import TrialData, encode_rows, target_moments
from pipelines.encoder import Encoder
from pipelines.preprocessing import OTHER_ID, PreprocessingState, fit_preprocessing
from pipelines.splits import fold_rows


def load_folds(directory: RunDirectory, data: TrialData) -> tuple[TrialData, ...]:
    """Returns every fold's training and held-out rows as the training and validation rows of its own data.

    Args:
        directory: The experiment, whose rows were dealt to folds.
        data: Its rows, whose encoding has the shape to follow.
    """
    table = read_arrow(directory.development_file)
    folds = table.column(FOLD_COLUMN).to_numpy()
    in_time = folds_in_time(directory)
    parts = []
    for fold in range(int(folds.max()) + 1):
        training, held_out = fold_rows(folds, fold, in_time=in_time)
        mask = np.zeros(table.num_rows, bool)
        mask[training] = True
        state = fit_preprocessing(table, data.schema, rows=mask)
        cache = directory.encoded.with_name(f"{directory.encoded.name}-fold-{fold + 1}")
        encoded = encode_rows(table, data.schema, Encoder(state), cache=cache, learned=mask)
        rows = _in_shape(encoded, state, shape=data.state)
        mean, scale = target_moments(data.schema, rows.take(training))
        parts.append(
            replace(
                data,
                training=rows.take(training),
                validation=rows.take(held_out),
                target_mean=mean,
                target_scale=scale,
            )
        )
    return tuple(parts)


def _in_shape(rows: EncodedRows, state: PreprocessingState, *, shape: PreprocessingState) -> EncodedRows:
    """Returns the rows with the columns and ids of another encoding: zeros for columns, "other" for ids it lacks."""
    numeric = np.zeros((rows.num_rows, len(shape.numeric_names)), rows.numeric.dtype)
    places = {name: place for place, name in enumerate(shape.numeric_names)}
    for column, name in enumerate(state.numeric_names):
        if name in places:
            numeric[:, places[name]] = rows.numeric[:, column]
    limits: NDArray[np.int64] = np.asarray(shape.cardinalities, np.int64)
    categorical = np.where(rows.categorical < limits, rows.categorical, OTHER_ID).astype(rows.categorical.dtype)
    return replace(rows, numeric=numeric, categorical=categorical)


def folds_in_time(directory: RunDirectory) -> bool:
    """Returns whether the folds are windows of time."""
    return bool(read_json(directory.manifest_file)["data"]["folds"]["in_time"])
