"""One search of three trials on real data, from the table to the verified SavedModel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from typer.testing import CliRunner

import tamiz
from app.cli import app

FILES = [
    "experiment.toml",
    "manifest.json",
    "schema.json",
    "profile.json",
    "preprocessing.json",
    "journal.jsonl",
    "report.html",
    "best/model.keras",
    "best/evaluation.json",
    "export/penguins/1/saved_model.pb",
    "data/development.arrow",
    "data/test.arrow",
]
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_it_ends_well_and_prints_nothing_else(finished: Any) -> None:
    assert (finished.code, finished.errors) == (0, "")


@pytest.mark.parametrize(
    "text",
    [
        "344 rows, 8 columns",
        "species: multiclass (text with 3 distinct values)",
        "sealed until the end",
        "island",
        "text, 3 distinct values",
        "objective",
        "validation accuracy, maximize",
        "Search ended: all trials are done. 3 trials: 3 completed.",
        "Sealed test, opened once (52 rows)",
        "95 % interval",
        "constant",
        "linear",
        "verified in a fresh process",
        "export/penguins/1",
        "report.html",
        "tamiz board ",
        "tamiz predict ",
        "tamiz serve",
    ],
)
def test_it_tells_what_happened(finished: Any, text: str) -> None:
    assert text in finished.output


def test_the_run_directory_is_laid_out_as_designed(finished: Any) -> None:
    run = finished.run
    for name in FILES:
        assert (run / name).is_file(), name
    assert sorted(path.name for path in (run / "trials").iterdir() if path.is_dir()) == ["0000", "0001", "0002"]
    extra = {path.name for path in (run / "export/penguins/1/assets.extra").iterdir()}
    wanted = {"schema.json", "profile.json", "model_card.md", "manifest.json", "tf_serving_warmup_requests"}
    assert wanted <= extra
    hidden = [path for path in run.rglob(".*") if path.name != ".gitignore"]
    assert hidden == []
    assert [path.name for path in run.parent.iterdir()] == ["penguins"]


def test_the_journal_tells_the_search_in_order(finished: Any) -> None:
    events = [record["event"] for record in finished.journal if record["event"] != "reported"]
    trials = ["started", "leased", "ended"] * 3
    assert events == ["journal", "session", "search", "portfolio", *trials, *["stage"] * 6]
    stages = [record["stage"] for record in finished.journal if record["event"] == "stage"]
    assert stages == ["search", "final", "ensemble", "test", "export", "report"]
    epochs = [record["epoch"] for record in finished.journal if record["event"] == "reported"]
    assert epochs == [*range(1, 9)] * 3


def test_the_manifest_says_what_the_result_hangs_on(finished: Any) -> None:
    manifest = read_json(finished.run / "manifest.json")
    assert manifest["seed"] == 42
    assert set(manifest["versions"]) >= {"python", "tensorflow", "keras", "numpy"}
    assert manifest["data"]["rows"] == {"train": 241, "validation": 51, "test": 52}
    assert len(manifest["data"]["fingerprint"]) == 64
    assert manifest["hardware"]["cores"] >= 1


def test_tensorboard_reads_every_trial(finished: Any) -> None:
    for number in range(3):
        events = EventAccumulator(str(finished.run / "trials" / f"{number:04d}"))
        events.Reload()
        tags = events.Tags()
        # TensorBoard keeps what TensorFlow 2 calls a scalar as a tensor of the plugin "scalars".
        assert {"train/loss", "val/loss", "val/accuracy", "learning_rate"} <= set(tags["tensors"])
        assert [event.step for event in events.Tensors("val/accuracy")] == list(range(1, 9))
        assert "val/accuracy" in events.PluginTagToContent("scalars")
        plugin = events.PluginTagToContent(hparams_metadata.PLUGIN_NAME)
        assert {hparams_metadata.SESSION_START_INFO_TAG, hparams_metadata.SESSION_END_INFO_TAG} <= set(plugin)
        start = hparams_metadata.parse_session_start_info_plugin_data(plugin[hparams_metadata.SESSION_START_INFO_TAG])
        assert {"depth", "width", "optimizer"} <= set(start.hparams)


def test_the_end_says_what_answers_and_nothing_is_left_of_the_others(finished: Any) -> None:
    decided = next(r["details"] for r in finished.journal if r["event"] == "stage" and r["stage"] == "ensemble")
    # The line breaks where the terminal ends.
    assert " ".join(decided["told"].split()) in " ".join(finished.output.split())
    card = (finished.run / "export/penguins/1/assets.extra/model_card.md").read_text()
    assert decided["told"] in card.replace("\\", "")
    saved = read_json(finished.run / "best/ensemble.json")
    assert [network["trial"] for network in saved["networks"]] == [int(trial) for trial in decided["members"]]
    files = {network["file"] for network in saved["networks"]} - {"model.keras"}
    assert {str(path.relative_to(finished.run / "best")) for path in finished.run.glob("best/members/*")} == files


def test_tensorboard_reads_the_winners_graph(finished: Any) -> None:
    events = EventAccumulator(str(finished.run / "best"))
    events.Reload()
    assert events.Tags()["graph"]
    assert len(events.Graph().node) > 10


def test_the_experiment_comes_back(finished: Any) -> None:
    experiment = tamiz.load(finished.run)
    board = experiment.leaderboard
    assert isinstance(board, pd.DataFrame)
    assert list(board["status"]) == ["completed"] * 3
    assert sorted(board["trial"]) == [0, 1, 2]
    assert list(board["value"]) == sorted(board["value"], reverse=True)
    assert {"epochs", "parameters", "seconds", "reason", "depth", "width"} <= set(board.columns)
    metrics = experiment.test_metrics
    assert {"accuracy", "balanced_accuracy", "f1", "roc_auc", "pr_auc", "log_loss", "brier", "ece"} <= set(metrics)
    assert metrics["accuracy"] > 0.8
    assert set(experiment.test_report.baselines) == {"constant", "linear"}
    assert list(experiment.schema.target.classes) == CLASSES
    assert experiment.saved_model == finished.run / "export" / "penguins" / "1"


def test_the_export_can_be_copied_once(finished: Any, tmp_path: Path) -> None:
    experiment = tamiz.load(finished.run)
    copy = experiment.export(tmp_path / "models" / "penguins")
    assert copy == tmp_path / "models" / "penguins" / "1"
    assert (copy / "saved_model.pb").read_bytes() == (experiment.saved_model / "saved_model.pb").read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["1"]
    with pytest.raises(tamiz.TamizError, match="1 exists: give another place, TensorFlow Serving needs a new version"):
        experiment.export(tmp_path / "models" / "penguins")
    with pytest.raises(tamiz.TamizError, match=r"cannot write .*: .*; give a place you may write to"):
        experiment.export(finished.run / "manifest.json" / "models")


def test_the_leaderboard_command_shows_the_trials(finished: Any) -> None:
    result = CliRunner().invoke(app, ["leaderboard", str(finished.run)])
    assert result.exit_code == 0
    assert "accuracy" in result.output
    assert "completed" in result.output


def test_a_finished_experiment_is_not_resumed(finished: Any) -> None:
    result = CliRunner().invoke(app, ["resume", str(finished.run)])
    assert result.exit_code == 0
    assert "is finished: its test rows have been opened. Start a new search" in result.output.replace("\n", " ")


def test_new_rows_are_answered_from_python_and_from_the_command_line(
    finished: Any, penguins: pd.DataFrame, tmp_path: Path
) -> None:
    new = penguins.drop(columns="species").sample(40, random_state=0)
    new.to_csv(tmp_path / "new.csv", index=False)
    arguments = ["predict", str(finished.run), str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.parquet")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "40 answers written to" in result.output
    written = pd.read_parquet(tmp_path / "out.parquet")
    with tamiz.load(finished.run) as experiment:
        answers = experiment.predict(new)
        whole = experiment.predict(penguins)
    assert list(answers.index) == list(new.index)
    probabilities = [f"probability of {label}" for label in CLASSES]
    assert list(answers.columns) == ["label", *probabilities]
    pd.testing.assert_frame_equal(answers.reset_index(drop=True), written, check_dtype=False)
    np.testing.assert_allclose(answers[probabilities].sum(axis=1), 1.0, rtol=1e-5)
    likeliest = np.asarray(CLASSES)[answers[probabilities].to_numpy().argmax(axis=1)]
    assert list(answers["label"]) == list(likeliest)
    # One row's answer does not hang on the rows beside it.
    np.testing.assert_allclose(whole.loc[new.index, probabilities], answers[probabilities], atol=1e-6)
    assert (whole["label"] == penguins["species"]).mean() > 0.8
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
