"""Kill -9, Ctrl-C, a full disk: what is left can be read, and the search goes on from it."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pandas as pd

import tamiz
from app.search_progress import read_progress


def test_a_kill_in_the_middle_leaves_a_readable_journal(killed: Any) -> None:
    cut, _ = killed
    assert cut.code == -signal.SIGKILL
    assert "Search ended" not in cut.output


def test_a_resumed_search_ends_as_an_undisturbed_one(killed: Any, finished: Any) -> None:
    _, resumed = killed
    assert resumed.code == 0, resumed.errors
    assert [record["event"] for record in resumed.journal].count("session") == 2
    undisturbed, again = tamiz.load(finished.run), tamiz.load(resumed.run)
    pd.testing.assert_frame_equal(
        again.leaderboard.drop(columns="seconds"), undisturbed.leaderboard.drop(columns="seconds"), check_exact=True
    )
    assert again.test_metrics == undisturbed.test_metrics
    assert again.test_report == undisturbed.test_report


def test_the_same_seed_gives_the_same_answers(killed: Any, finished: Any) -> None:
    """The export was verified on these rows and answers: held-out ones and hostile ones."""
    _, resumed = killed
    paths = [run / "best" / "verification.npz" for run in (resumed.run, finished.run)]
    with np.load(paths[0], allow_pickle=False) as first, np.load(paths[1], allow_pickle=False) as second:
        assert set(first.files) == set(second.files)
        assert first["expected_0"].shape[1] == 3
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])


def test_every_epoch_is_in_the_journal_once(killed: Any) -> None:
    _, resumed = killed
    reported = [(r["trial"], r["epoch"]) for r in resumed.journal if r["event"] == "reported"]
    assert reported == [(trial, epoch) for trial in range(3) for epoch in range(1, 9)]


def test_ctrl_c_twice_leaves_at_once(left: Any) -> None:
    assert left.code == 130
    assert "left at once; go on with `tamiz resume`" in left.errors
    assert "Traceback" not in left.errors
    assert not (left.run / "export").exists()


def test_a_full_disk_ends_the_search_with_what_to_do(full_disk: Any) -> None:
    full, journal, _ = full_disk
    assert full.code == 2
    lines = full.errors.strip().splitlines()
    assert len(lines) == 1, full.errors
    assert lines[0].startswith("tamiz: the disk is full: could not write ")
    assert lines[0].endswith("free some space, then go on with `tamiz resume`")
    assert [record["event"] for record in journal] == ["journal", "session", "search", "started", "leased"]


def test_with_room_again_it_goes_on_and_ctrl_c_finishes_with_the_best_so_far(full_disk: Any) -> None:
    _, _, resumed = full_disk
    assert resumed.code == 0, resumed.errors
    assert "Search ended: interrupted. 1 trial" in resumed.output
    assert resumed.errors == "\nfinishing with the best so far; Ctrl-C again leaves at once\n"
    assert list(tamiz.load(resumed.run).leaderboard["status"]) == ["pruned"]
    assert (resumed.run / "export" / "penguins" / "1" / "saved_model.pb").is_file()
    assert (resumed.run / "report.html").is_file()
    progress = read_progress(tamiz.load(resumed.run).directory)
    assert progress.best is not None
    assert progress.stages["final"]["epochs"] == progress.best_epoch(progress.best)


def test_a_space_without_a_model_is_refused_and_leaves_nothing(without_model: Any) -> None:
    assert without_model.code == 2
    assert without_model.errors.count("\n") == 1
    assert "NoneType" in without_model.errors
    assert "expected build(hp) to return a keras.Model" in without_model.errors
    assert list(without_model.run.parent.iterdir()) == []


def test_a_space_that_cannot_be_imported_is_refused_and_leaves_nothing(not_importable: Any) -> None:
    assert not_importable.code == 2
    assert not_importable.errors.count("\n") == 1
    assert "cannot import the space module 'penguin_places': ModuleNotFoundError" in not_importable.errors
    assert "importable from the folder the command runs in, or installed" in not_importable.errors
    assert list(not_importable.run.parent.iterdir()) == []
