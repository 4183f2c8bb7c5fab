"""A long search's journal: how fast a resume reads it, how much memory the coordinator holds, how big it is.

    python benchmarks/journal_size.py [--quick]

Writes journals of 2,000 trials (200 with --quick) as a search does: full-budget trials of 27 and of 100 epochs, and
Hyperband's many short ones. A fresh process then opens each as `tamiz resume` would, up to the first suggestion of the
sampler `random` (what other samplers cost is measured by search_tables.py). It prints, for each,

    records and megabytes of the journal; seconds to resume, and of them on the processor; peak resident memory of the
    process in MB, and what of it was there before the journal was opened; milliseconds that the coordinator spends on
    an epoch of one more trial

and whether the limits hold: resume in under 5 s, memory under 300 MB. Takes about a minute; 10 s with --quick.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MAX_SECONDS = 5.0
MAX_MEGABYTES = 300.0
NUM_PARAMETERS = 14


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of search.

    Attributes:
        name: What it is called.
        algorithm: Who searches.
        max_epochs: Full budget of a trial.
    """

    name: str
    algorithm: str
    max_epochs: int


SHAPES = (
    Shape("full budget, 27 epochs", "random", 27),
    Shape("full budget, 100 epochs", "random", 100),
    Shape("hyperband, up to 27 epochs", "hyperband+random", 27),
)


def write_journal(folder: Path, shape: Shape, *, num_trials: int) -> None:
    """Writes the journal of a finished search, event by event, without TensorBoard's files."""
    from app.execution.messages import EpochEnded, TrialEnded
    from app.run_directory import RunDirectory
    from app.search.algorithm import create
    from app.search.facts_json import fact_to_json
    from app.search.journal import Journal
    from app.search.space import Float, Space
    from app.search.trial import Completed, Ended, Paused, Reported, Started
    from app.search_progress import Search

    space = Space([Float(f"parameter_{index}", 0.0, 1.0) for index in range(NUM_PARAMETERS)])
    search = Search(
        algorithm=shape.algorithm,
        reason="benchmark",
        objective="log_loss",
        max_epochs=shape.max_epochs,
        seed=1,
        max_trials=num_trials + 1,
    )
    algorithm = create(
        shape.algorithm, space=space, seed=1, max_epochs=shape.max_epochs, max_trials=num_trials
    )
    with Journal.open(RunDirectory(folder).journal_file) as journal:
        journal.append({"event": "session", "started": 0.0, "time": 0.0})
        content = {name: getattr(search, name) for name in Search.__slots__}
        journal.append({"event": "search", "search": content, "space": space.to_json(), "time": 0.0})
        while suggestions := algorithm.suggest(1):
            suggestion = suggestions[0]
            worker = "worker 0 (process 12345)"
            journal.append({**fact_to_json(Started(suggestion)), "time": 1700000000.123})
            journal.append({"event": "leased", "trials": [suggestion.trial], "worker": worker, "time": 1700000000.123})
            facts = [Started(suggestion)]
            for epoch in range(suggestion.start_epoch + 1, suggestion.budget + 1):
                loss = float(suggestion.hyperparameters["parameter_0"]) + 1.0 / epoch
                scalars = {"train/loss": loss, "val/loss": loss, "val/log_loss": loss, "learning_rate": 0.001}
                event = EpochEnded(
                    trial=suggestion.trial, epoch=epoch, loss=loss, scalars=scalars, wall_time=1700000000.123
                )
                facts.append(Reported(event.trial or 0, event.epoch, event.loss))
                journal.append({**fact_to_json(facts[-1]), "scalars": dict(event.scalars), "time": event.wall_time})
            full = suggestion.budget == shape.max_epochs
            ended = TrialEnded(
                trial=suggestion.trial, outcome=Completed(loss) if full else Paused(suggestion.budget)
            )
            facts.append(Ended(ended.trial, ended.outcome))
            costs = {"parameters": 12345, "seconds": 1.234}
            journal.append({**fact_to_json(facts[-1]), **costs, "time": 1700000000.123})
            algorithm.update(facts)


def resume(folder: Path) -> dict[str, float]:
    """Opens a journal as a resumed search does; returns what it cost. To be run in a process of its own."""
    import app.experiment  # noqa: F401 - what a coordinator holds before it looks at the journal
    from app.execution.messages import EpochEnded
    from app.run_directory import RunDirectory
    from app.search.algorithm import Algorithm, Recipe
    from app.search_record import SearchRecord

    before = _peak_megabytes()
    start, cpu = time.perf_counter(), time.process_time()
    record = SearchRecord(RunDirectory(folder), started=time.time())
    search, space = record.progress.search, record.progress.space
    if search is None or space is None:
        raise RuntimeError("the journal holds no search")
    recipe = Recipe(
        name=search.algorithm,
        space=space,
        seed=search.seed,
        max_epochs=search.max_epochs,
        max_trials=search.max_trials,
    )
    algorithm = Algorithm(recipe, history=record.progress.history)
    best = record.progress.best
    suggestions = algorithm.suggest(1)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if best is None or not suggestions:
        raise RuntimeError("the search cannot go on")
    record.started(suggestions[0])
    from app.search.trial import Started

    algorithm.update([Started(suggestions[0])])
    number, epochs = suggestions[0].trial, 50
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        known = len(record.progress.facts)
        record.epoch_ended(EpochEnded(trial=number, epoch=epoch, loss=0.5, scalars={}, wall_time=time.time()))
        algorithm.update(record.progress.facts[known:])
        algorithm.hopeless(number)
        _ = record.progress.best
    per_epoch = (time.perf_counter() - start) / epochs
    record.close()
    return {
        "seconds": seconds,
        "cpu": cpu,
        "before": before,
        "peak": _peak_megabytes(),
        "ms_per_epoch": 1000 * per_epoch,
        "trials": len(record.history),
    }


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> int:
    """Measures and prints; returns 1 when a limit does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 trials instead of 2,000")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume:
        print(json.dumps(resume(options.resume)))
        return 0
    num_trials, holds = 200 if options.quick else 2000, True
    title = f"search of {num_trials:,} trials"
    print(f"{title:32} records     MB  resume s   (CPU)  peak MB (before)  ms/epoch")
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            write_journal(Path(folder), shape, num_trials=num_trials)
            journal = (Path(folder) / "journal.jsonl").read_bytes()
            done = subprocess.run(
                [sys.executable, __file__, "--resume", folder], stdout=subprocess.PIPE, text=True, check=True
            )
            cost = {**json.loads(done.stdout), "records": journal.count(b"\n")}
        cpu, before = f"({cost['cpu']:.2f})", f"({cost['before']:.0f})"
        print(
            f"{shape.name:32} {cost['records']:7,.0f} {len(journal) / 1e6:6.1f} {cost['seconds']:9.2f} {cpu:>7} "
            f"{cost['peak']:8.0f} {before:>8} {cost['ms_per_epoch']:9.2f}"
        )
        holds &= cost["seconds"] < MAX_SECONDS and cost["peak"] < MAX_MEGABYTES
    print(f"resume under {MAX_SECONDS:.0f} s and memory under {MAX_MEGABYTES:.0f} MB: {'yes' if holds else 'no'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
