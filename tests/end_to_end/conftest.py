"""Whole experiments through the real command line, each run once and looked at by many tests.

What a test asks for is started before the first of them runs, two at a time: most of an experiment's time here is the
import of TensorFlow, on one core.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 300.0
EPOCHS = 8
SPACE = ("--space", "mlp")
"""The family whose networks build fastest; what these tests look at is the same for all."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    run: Path
    code: int
    output: str
    errors: str

    @property
    def journal(self) -> list[dict[str, Any]]:
        return read_journal(self.run)


class Command:
    """`tamiz` as a user starts it, in a process group of its own."""

    def __init__(self, *arguments: object, run: Path, cwd: Path = ROOT) -> None:
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> Finished:
        try:
            output, errors = self.process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return Finished(self.run, self.process.returncode, output, errors)

    def wait_for(self, reached: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Waits until the journal says so."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not reached(read_journal(self.run)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                told = self.process.communicate()
                raise RuntimeError(f"the journal of {self.run} never got there ({self.process.returncode}): {told}")
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill_worker(self) -> None:
        """Kills the worker process that it has now."""
        children = " ".join(file.read_text() for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"))
        workers = [one for one in children.split() if "worker_process" in Path(f"/proc/{one}/cmdline").read_text()]
        os.kill(int(workers[0]), signal.SIGKILL)

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)


def read_journal(run: Path) -> list[dict[str, Any]]:
    """The complete records so far, none before there is a journal."""
    with contextlib.suppress(FileNotFoundError):
        text = (run / "journal.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return []


def count_of(event: str, records: list[dict[str, Any]]) -> int:
    """The records of an event."""
    return sum(record["event"] == event for record in records)


def has_reported(trial: int) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether a trial has finished an epoch."""
    return lambda records: any(r["event"] == "reported" and r["trial"] == trial for r in records)


def finished(folder: Path, data: Path) -> Finished:
    """An undisturbed search of three trials."""
    run = folder / "penguins"
    options = ("--target", "species", "--trials", 3, "--epochs", EPOCHS, "--name", "penguins", *SPACE)
    return Command("search", data, *options, "--run", run, run=run).finish()


def from_database(folder: Path, data: Path) -> tuple[Finished, Finished]:
    """The search of `finished` on the same rows in a database, and answers to a query."""
    connection = sqlite3.connect(folder / "birds.db")
    pd.read_csv(data).to_sql("birds", connection, index=False)
    connection.close()
    run = folder / "penguins"
    place = ("--sql", "select * from birds", "--url", f"sqlite:///{folder / 'birds.db'}")
    options = ("--target", "species", "--trials", 3, "--epochs", EPOCHS, "--name", "penguins", *SPACE)
    searched = Command("search", *place, *options, "--run", run, run=run).finish()
    output = folder / "answers.parquet"
    return searched, Command("predict", run, *place, "--output", output, "--chunk-rows", 100, run=run).finish()


def pictures(folder: Path, images: Path) -> tuple[Finished, Finished]:
    """A search on a folder of images, as if they were too many for memory, and answers to them."""
    run = folder / "digits"
    options = ("--trials", 2, "--epochs", 3, "--run", run, "--config", folder / "cnn.toml")
    (folder / "cnn.toml").write_text("[search]\nensemble = 1\n[data]\nin_memory = 1000\n")
    searched = Command("search", images, *options, run=run).finish()
    output = folder / "answers.csv"
    return searched, Command("predict", run, images, "--key", "image", "--output", output, run=run).finish()


def shared_weights(folder: Path, images: Path) -> tuple[Finished, Finished]:
    """A search by shared weights whose worker is killed over them, and then the whole; resumed."""
    run = folder / "cells"
    (folder / "cell.toml").write_text("[search]\nensemble = 1\n")
    options = ("--algorithm", "one-shot", "--trials", 3, "--epochs", 2, "--config", folder / "cell.toml", "--run", run)
    command = Command("search", images, *options, run=run)
    command.wait_for(lambda records: count_of("supernet_epoch", records) > 0)
    command.kill_worker()
    command.wait_for(lambda records: count_of("worker_replaced", records) > 0)
    before = count_of("supernet_epoch", read_journal(run))
    # However late the kills come on a busy machine, the search must go on from what there is.
    command.wait_for(
        lambda records: count_of("supernet_epoch", records) > before or count_of("stage", records) > 0
    )
    command.kill_group()
    return command.finish(), Command("resume", run, run=run).finish()


def forecasting(folder: Path) -> tuple[Finished, Finished]:
    """A search that forecasts the sales of two shops, and answers about the days that follow."""
    rng, days = np.random.default_rng(0), np.arange(150)
    parts = [
        pd.DataFrame(
            {
                "day": pd.date_range("2022-01-01", periods=150),
                "shop": shop,
                "sold": (50 + 10 * np.sin(days * 2 * np.pi / 7) + rng.normal(0, 1, 150)).round(2),
            }
        )
        for shop in "ab"
    ]
    pd.concat(parts).to_csv(folder / "sales.csv", index=False)
    run, data = folder / "sales", folder / "sales.csv"
    series = ("--time-column", "day", "--series-id", "shop", "--horizon", 2, "--context", 14, "--season", 7)
    options = ("--target", "sold", "--trials", 2, "--epochs", 2, *SPACE, "--run", run)
    searched = Command("search", data, *series, *options, run=run).finish()
    return searched, Command("predict", run, data, "--output", folder / "answers.csv", run=run).finish()


def killed(folder: Path, data: Path) -> tuple[Finished, Finished]:
    """The same search, killed in the middle of its second trial, and resumed."""
    run = folder / "killed"
    options = ("--target", "species", "--trials", 3, "--epochs", EPOCHS, "--name", "penguins", *SPACE)
    command = Command("search", data, *options, "--run", run, run=run)
    command.wait_for(has_reported(1))
    command.kill_group()
    return command.finish(), Command("resume", run, run=run).finish()


def folded(folder: Path, data: Path) -> tuple[Finished, Finished]:
    """A search by cross-validation, killed in the second fold of its second trial, and resumed."""
    run = folder / "folds"
    options = ("--target", "species", "--trials", 2, "--folds", 3, "--epochs", 4, "--name", "penguins", *SPACE)
    command = Command("search", data, *options, "--run", run, run=run)
    command.wait_for(has_reported(1))
    command.kill_group()
    return command.finish(), Command("resume", run, run=run).finish()


ENDLESS = '[training]\nmax_epochs = 1000000\npatience = 1000000\n[search]\nspace = "penguin_spaces:SPACE"\n'


def left(folder: Path, data: Path, spaces: Path) -> Finished:
    """A search that two Ctrl-C end at once."""
    run = folder / "left"
    (folder / "left.toml").write_text(ENDLESS.replace("SPACE", "classes"))
    options = ("--target", "species", "--trials", 3, "--config", folder / "left.toml")
    command = Command("search", data, *options, "--run", run, run=run, cwd=spaces)
    command.wait_for(has_reported(0))
    # Stopped, it cannot end its trial between the two.
    command.send(signal.SIGINT)
    while not (command.process.stderr and command.process.stderr.readline().startswith("finishing")):
        time.sleep(0.01)
    command.send(signal.SIGINT)
    return command.finish()


def full_disk(folder: Path, data: Path, spaces: Path) -> tuple[Finished, list[dict[str, Any]], Finished]:
    """A search on a disk that is too small for its first checkpoint; resumed on a larger one and ended by Ctrl-C.

    Raises:
        PermissionError: Nothing can be mounted here.
    """
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        raise PermissionError(mounted.stderr)
    try:
        run = disk / "run"
        (folder / "full.toml").write_text(ENDLESS.replace("SPACE", "wide"))
        options = ("--target", "species", "--trials", 3, "--config", folder / "full.toml")
        full = Command("search", data, *options, "--run", run, run=run, cwd=spaces).finish()
        journal = full.journal
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        command = Command("resume", run, run=run, cwd=spaces)
        command.wait_for(has_reported(0))
        command.send(signal.SIGINT)
        resumed = command.finish()
        resumed = dataclasses.replace(resumed, run=folder / "off-the-disk")
        subprocess.run(["cp", "-r", run, resumed.run], check=True)
        return full, journal, resumed
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def without_model(folder: Path, data: Path, spaces: Path) -> Finished:
    """A space that forgets to return its model."""
    run = folder / "without"
    options = ("--target", "species", "--trials", 1, "--space", "penguin_spaces:nothing")
    return Command("search", data, *options, "--run", run, run=run, cwd=spaces).finish()


def not_importable(folder: Path, data: Path) -> Finished:
    """A space whose module is not there."""
    run = folder / "absent"
    options = ("--target", "species", "--trials", 1, "--space", "penguin_places:classes")
    return Command("search", data, *options, "--run", run, run=run).finish()


Scenarios = Mapping[str, Future[Any]]


@pytest.fixture(scope="session")
def scenarios(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    space_folder: Path,
    penguins_csv: Path,
    digit_folder: Path,
) -> Iterator[Scenarios]:
    """Starts every scenario that a collected test asks for."""
    spaces, data = space_folder, penguins_csv
    every: dict[str, Callable[[Path], Any]] = {
        "finished": lambda folder: finished(folder, data),
        "from_database": lambda folder: from_database(folder, data),
        "forecast": forecasting,
        "pictures": lambda folder: pictures(folder, digit_folder),
        "shared_weights": lambda folder: shared_weights(folder, digit_folder),
        "killed": lambda folder: killed(folder, data),
        "folded": lambda folder: folded(folder, data),
        "full_disk": lambda folder: full_disk(folder, data, spaces),
        "left": lambda folder: left(folder, data, spaces),
        "without_model": lambda folder: without_model(folder, data, spaces),
        "not_importable": lambda folder: not_importable(folder, data),
    }
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {
            name: pool.submit(play, tmp_path_factory.mktemp(name)) for name, play in every.items() if name in asked
        }


@pytest.fixture(scope="session", name="finished")
def finished_fixture(scenarios: Scenarios) -> Finished:
    result: Finished = scenarios["finished"].result()
    if result.code:
        pytest.fail(result.errors)
    return result


@pytest.fixture(scope="session", name="from_database")
def from_database_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["from_database"].result()
    return result


@pytest.fixture(scope="session", name="forecast")
def forecast_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["forecast"].result()
    return result


@pytest.fixture(scope="session", name="pictures")
def pictures_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["pictures"].result()
    if result[0].code:
        pytest.fail(result[0].errors)
    return result


@pytest.fixture(scope="session", name="shared_weights")
def shared_weights_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["shared_weights"].result()
    return result


@pytest.fixture(scope="session", name="killed")
def killed_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["killed"].result()
    return result


@pytest.fixture(scope="session", name="folded")
def folded_fixture(scenarios: Scenarios) -> tuple[Finished, Finished]:
    result: tuple[Finished, Finished] = scenarios["folded"].result()
    return result


@pytest.fixture(scope="session", name="full_disk")
def full_disk_fixture(scenarios: Scenarios) -> tuple[Finished, list[dict[str, Any]], Finished]:
    try:
        result: tuple[Finished, list[dict[str, Any]], Finished] = scenarios["full_disk"].result()
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    return result


@pytest.fixture(scope="session", name="left")
def left_fixture(scenarios: Scenarios) -> Finished:
    result: Finished = scenarios["left"].result()
    return result


@pytest.fixture(scope="session", name="without_model")
def without_model_fixture(scenarios: Scenarios) -> Finished:
    result: Finished = scenarios["without_model"].result()
    return result


@pytest.fixture(scope="session", name="not_importable")
def not_importable_fixture(scenarios: Scenarios) -> Finished:
    result: Finished = scenarios["not_importable"].result()
    return result
