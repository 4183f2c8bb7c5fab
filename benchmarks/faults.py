"""Kill -9 of the coordinator and of workers at random moments of many short real searches.

    python benchmarks/faults.py [--searches 50] [--kills 2] [--seed 0] [--patience 600] [--quick]

Every search trains real networks on examples/penguins.csv with two worker processes: one trial at a time on even
searches, in packs on odd ones. Each is killed --kills times, the coordinator or one of its workers, and started again
until it ends. Then, of every search:

    the journal was readable after every kill, and no trial that it had was lost;
    every trial has ended exactly once, and no epoch of any was told twice;
    none failed, but those that lost two workers, of which the journal tells;
    trained one by one, every trial has the same curve in all searches, bit for bit: a kill changes nothing.

Prints a line a search and what was counted; exits with 1 when something does not hold. A start of the workers costs
about 8 s on two cores, so 50 searches of 2 kills take about 20 minutes; --quick makes it one, in half a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NUM_WORKERS = 2
EPOCHS = 3
NUM_TRIALS = {"tiny_spaces:build": 10, "mlp": 24}
"""So many that a search is not over before its second kill."""

SPACE = '''
import keras


def build(hp):
    model = keras.Sequential([keras.layers.Dense(hp.Int("width", 4, 16), activation="relu"), keras.layers.Dense(3)])
    rate = hp.Float("rate", 1e-3, 1e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
'''


def coordinate(folder: Path) -> None:
    """Searches whatever in `folder` is not finished, with one pool of workers, as `app.experiment` does."""
    from contextlib import closing

    from app.execution.local_executor import LocalExecutor
    from app.execution.messages import OpenRun
    from app.interrupts import Interrupts
    from app.run_directory import RunDirectory
    from app.search.algorithm import Algorithm, Recipe
    from app.search_loop import Packing, SearchLoop
    from app.search_progress import Search
    from app.search_record import SearchRecord
    from app.time_budget import TimeBudget

    with closing(LocalExecutor(num_workers=NUM_WORKERS)) as executor:
        for path in sorted(folder.glob("search-*")):
            directory = RunDirectory(path)
            with directory.lock(), closing(SearchRecord(directory, started=time.time())) as record:
                if "search" in record.progress.stages:
                    continue
                request = OpenRun(
                    directory=str(directory.path), objective="log_loss", max_epochs=EPOCHS, seed=1
                )
                opened = executor.open(request)
                space_name = directory.read_config().search.space
                num_trials = NUM_TRIALS[space_name]
                space = record.progress.space or opened.space
                if record.progress.search is None:
                    search = Search(
                        algorithm="random",
                        reason="faults",
                        objective="log_loss",
                        max_epochs=EPOCHS,
                        seed=1,
                        max_trials=num_trials,
                    )
                    record.begin(search, space)
                recipe = Recipe(name="random", space=space, seed=1, max_epochs=EPOCHS, max_trials=num_trials)
                loop = SearchLoop(
                    Algorithm(recipe, history=record.progress.history),
                    executor=executor,
                    record=record,
                    directory=directory,
                    budget=TimeBudget(end=float("inf"), finishing=0.0),
                    keep=1,
                    packing=Packing(space=space_name, num_rows=100) if space_name == "mlp" else None,
                )
                reason = loop.run(interrupts=Interrupts(), show=lambda _: None)
                record.stage_done("search", reason=reason)


def prepare(folder: Path, *, num_searches: int) -> None:
    """Makes the run directories."""
    from app.config import DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
    from app.data_files import write_config, write_data
    from app.data_source import read_source
    from app.data_stage import prepare_data
    from app.run_directory import RunDirectory

    (folder / "tiny_spaces.py").write_text(SPACE)
    config = ExperimentConfig(
        data=DataConfig(target="species"), training=TrainingConfig(max_epochs=EPOCHS, patience=EPOCHS)
    )
    data = prepare_data(read_source(ROOT / "examples" / "penguins.csv", config), config)
    template = RunDirectory(folder / "template")
    with template.staged() as staged:
        write_data(data, config, directory=staged)
    for number in range(num_searches):
        path = folder / f"search-{number:03d}"
        shutil.copytree(template.path, path)
        space = list(NUM_TRIALS)[number % 2]
        write_config(
            RunDirectory(path),
            ExperimentConfig(data=config.data, training=config.training, search=SearchConfig(space=space)),
        )


class Harness:
    """Starts the coordinator, kills it and its workers, and looks at what they leave.

    Args:
        folder: Where the searches are.
        rng: Chooses moments and victims.
        patience: Seconds without a new line in a journal after which its search stalls.
    """

    def __init__(self, folder: Path, rng: random.Random, *, patience: float) -> None:
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self._rng, self._patience = rng, patience
        self._num_lines, self._moved = 0, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, path: Path, *, num_kills: int) -> list[str]:
        """Lets the coordinator finish a search, killing as it goes; returns what is wrong."""
        self._moved = time.monotonic()
        wrong: list[str] = []
        for victim in self._victims(num_kills):
            # Not while TensorFlow is imported, which would be most kills: when this search is under way again.
            lines = len(self._lines(path)) + self._rng.randrange(1, 20)
            while len(self._lines(path)) < lines and not self._is_over(path):
                self._keep_running(path)
            time.sleep(self._rng.random() * 0.2)
            before = self._trials(path)
            self._kill(victim)
            if missing := before - self._trials(path):
                wrong.append(f"a kill of the {victim} lost trials {sorted(missing)}")
        while not self._is_over(path):
            self._keep_running(path)
        return wrong

    def close(self) -> None:
        """Ends the coordinator."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _victims(self, num_kills: int) -> list[str]:
        kinds = ["worker", "coordinator"]
        self._rng.shuffle(kinds)
        return [kinds[index % 2] for index in range(num_kills)]

    def _keep_running(self, path: Path) -> None:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None and self._process.returncode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"the coordinator ended with {self._process.returncode}")
            command = [sys.executable, __file__, "--coordinate", str(self.folder)]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment)
        num_lines = len(self._lines(path))
        if num_lines != self._num_lines:
            self._num_lines, self._moved = num_lines, time.monotonic()
        if time.monotonic() > self._moved + self._patience:
            raise RuntimeError(f"{path.name} stalls: its journal did not grow for {self._patience:.0f} s")
        time.sleep(0.005)

    def _kill(self, victim: str) -> None:
        if self._process is None:
            return
        targets = [self._process.pid] if victim == "coordinator" else workers_of(self._process.pid)
        if targets:
            os.kill(self._rng.choice(targets), signal.SIGKILL)
            self.kills[victim] += 1
        if victim == "coordinator":
            self._process.wait()

    def _lines(self, path: Path) -> list[bytes]:
        journal = path / "journal.jsonl"
        return journal.read_bytes().splitlines() if journal.exists() else []

    def _trials(self, path: Path) -> set[int]:
        """The trials that the journal knows; reading it is the test that it can be read."""
        from app.run_directory import RunDirectory
        from app.search_progress import read_progress

        return set(read_progress(RunDirectory(path)).history)

    def _is_over(self, path: Path) -> bool:
        return any(b'"stage":"search"' in line for line in self._lines(path)[-1:])


def workers_of(coordinator: int) -> list[int]:
    """Process ids of the workers of a coordinator."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_text()
        except (OSError, IndexError):
            continue
        if parent == str(coordinator) and "app.execution.worker_process" in command:
            found.append(int(entry.name))
    return sorted(found)


def check(path: Path, curves: dict[int, Any]) -> tuple[list[str], Counter[str]]:
    """Returns what is wrong with a finished search, and how its trials ended."""
    from app.run_directory import RunDirectory
    from app.search import journal
    from app.search.trial import Completed, Failed
    from app.search_progress import read_progress

    directory = RunDirectory(path)
    space = directory.read_config().search.space
    records = journal.read(directory.journal_file)
    progress = read_progress(directory)
    wrong = []
    if list(progress.history) != list(range(NUM_TRIALS[space])):
        wrong.append(f"trials are {list(progress.history)}")
    for event, keys in (("ended", ("trial",)), ("reported", ("trial", "epoch")), ("started", ("trial",))):
        seen = Counter(tuple(record[key] for key in keys) for record in records if record["event"] == event)
        twice = [key for key, count in seen.items() if count > 1]
        if twice:
            wrong.append(f"{event} twice: {twice}")
    for trial in progress.history.values():
        if isinstance(trial.outcome, Failed) and trial.number in progress.retried:
            continue
        if not isinstance(trial.outcome, Completed) or trial.epochs != EPOCHS:
            wrong.append(f"trial {trial.number} has {trial.epochs} epochs and ended as {trial.outcome}")
        elif space != "mlp" and curves.setdefault(trial.number, trial.curve) != trial.curve:
            wrong.append(f"trial {trial.number} has another curve: {trial.curve}, not {curves[trial.number]}")
    kinds = Counter(type(trial.outcome).__name__.lower() for trial in progress.history.values())
    return wrong, kinds + Counter({"tried again": len(progress.retried)})


def main() -> int:
    """Runs the searches; returns 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--kills", type=int, default=2, help="kills a search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds without news after which one stalls")
    parser.add_argument("--quick", action="store_true", help="one search")
    parser.add_argument("--coordinate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.coordinate:
        coordinate(options.coordinate)
        return 0
    num_searches = 1 if options.quick else options.searches
    all_wrong, totals, curves = 0, Counter[str](), dict[int, Any]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, num_searches=num_searches)
        harness = Harness(folder, random.Random(options.seed), patience=options.patience)
        try:
            for path in sorted(folder.glob("search-*")):
                start = time.monotonic()
                wrong = harness.run(path, num_kills=options.kills)
                more, kinds = check(path, curves)
                wrong += more
                totals += kinds
                all_wrong += len(wrong)
                told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
                print(f"{path.name}: {told} in {time.monotonic() - start:.0f} s", flush=True)
                for line in wrong:
                    print(f"    WRONG: {line}", flush=True)
        finally:
            harness.close()
    killed = ", ".join(f"{count} of a {victim}" for victim, count in sorted(harness.kills.items()))
    print(f"{num_searches} searches, kills: {killed}; trials: {dict(totals)}; wrong: {all_wrong}")
    return 1 if all_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
