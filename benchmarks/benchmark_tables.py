"""The tables that the benchmarks train on; both come from scikit-learn and need no download."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits, make_classification

TARGET = "target"
MIXED_ROWS = 40_000
NUM_COLUMNS = 20
NUM_CATEGORICAL = 6
MISSING_SHARE = 0.03


def digits_table() -> pd.DataFrame:
    """Returns scikit-learn's digits: 1,797 rows, 64 pixels in 0..16, ten classes."""
    digits = load_digits(as_frame=True)
    frame: pd.DataFrame = digits.data.assign(**{TARGET: digits.target.map("digit {}".format)})
    return frame


def mixed_table(*, num_rows: int = MIXED_ROWS, seed: int = 7) -> pd.DataFrame:
    """Returns a made table of two classes with numbers, categories and missing values.

    Args:
        num_rows: Number of rows.
        seed: Seed of everything in it.

    Returns:
        20 columns: 14 numeric ones and 6 that were numbers and became categories of 4 to 24 levels; 3 % of the
        values of every column are missing, and 3 % of the labels are wrong.
    """
    features, target = make_classification(
        n_samples=num_rows,
        n_features=NUM_COLUMNS,
        n_informative=12,
        n_redundant=4,
        n_clusters_per_class=4,
        flip_y=0.03,
        random_state=seed,
    )
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {}
    for index in range(NUM_COLUMNS):
        column = pd.Series(features[:, index])
        if index < NUM_CATEGORICAL:
            levels = 4 * (index + 1)
            column = pd.qcut(column, levels, labels=[f"level {level:02d}" for level in range(levels)]).astype("object")
        columns[f"column_{index:02d}"] = column.mask(rng.random(num_rows) < MISSING_SHARE)
    return pd.DataFrame({**columns, TARGET: np.where(target == 1, "yes", "no")})
