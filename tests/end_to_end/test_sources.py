"""The same rows from a file and from a database are one experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.experiment import load


def schema_of(run: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((run / "schema.json").read_text())
    for feature in schema["features"]:
        del feature["reason"]
    return schema


def data_of(run: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return dict(manifest["data"])


def test_a_database_gives_the_model_that_a_file_gives(finished: Any, from_database: Any) -> None:
    searched, _ = from_database
    assert searched.code == 0, searched.errors
    assert schema_of(searched.run) == schema_of(finished.run)
    assert data_of(searched.run)["splits_sha256"] == data_of(finished.run)["splits_sha256"]
    assert (searched.run / "preprocessing.json").read_text() == (finished.run / "preprocessing.json").read_text()
    first, second = load(finished.run), load(searched.run)
    columns = [name for name in first.leaderboard if name != "seconds"]
    pd.testing.assert_frame_equal(second.leaderboard[columns], first.leaderboard[columns])
    assert second.test_metrics == first.test_metrics


def test_a_query_is_answered_in_chunks(from_database: Any, penguins: pd.DataFrame) -> None:
    _, predicted = from_database
    assert predicted.code == 0, predicted.errors
    answers = pd.read_parquet(predicted.run.parent / "answers.parquet")
    assert len(answers) == len(penguins)
    assert (answers["label"] == penguins["species"]).mean() > 0.9
    shares = answers.drop(columns="label").to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)


def test_the_files_of_the_data_are_in_the_manifest(finished: Any, penguins_csv: Path) -> None:
    (file,) = data_of(finished.run)["files"]
    assert file["name"] == str(penguins_csv)
    assert file["num_bytes"] == penguins_csv.stat().st_size
    assert file["blake3"] == data_of(finished.run)["fingerprint"]
