"""The rows of every fold, encoded with what its own training rows taught (R5), in the shape of all rows' encoding.

Trials are compared over folds and the winner is trained on all rows, so the networks of all folds take the input that
the final one takes: a column that a fold's training rows do not call for (such as the indicator of a value that is
missing only among its held-out rows) is there and always zero. One graph then serves all folds of a trial.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from app.data_files import FOLD_COLUMN, read_arrow
from app.evaluation.baselines import EncodedRows
from app.run_directory import RunDirectory, read_json, write_json
from app.training.fold_encoder import in_shape, shaping
from app.training.trial_data import TrialData, encode_rows, target_moments
from pipelines.encoder import Encoder
from pipelines.preprocessing import PreprocessingState, fit_preprocessing
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
        write_json(fold_state_file(directory, fold + 1), state.to_json())
        cache = directory.encoded.with_name(f"{directory.encoded.name}-fold-{fold + 1}")
        encoded = encode_rows(table, data.schema, Encoder(state, alive=data.encoder.alive), cache=cache, learned=mask)
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
    shaped = in_shape({"numeric": rows.numeric, "categorical": rows.categorical}, **shaping(state, shape))
    return replace(rows, numeric=shaped["numeric"], categorical=shaped["categorical"])


def fold_state_file(directory: RunDirectory, fold: int) -> Path:
    """Returns the file of what the training rows of a fold (from 1) taught, which its networks' encoding rests on."""
    return directory.data / f"preprocessing-fold-{fold}.json"


def folds_in_time(directory: RunDirectory) -> bool:
    """Returns whether the folds are windows of time."""
    return bool(read_json(directory.manifest_file)["data"]["folds"]["in_time"])
