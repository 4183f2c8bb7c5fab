"""Many trials in one graph: packs of mlp networks beside the same trials one by one, and beside KerasTuner.

One process, warm: TensorFlow imported, rows encoded, one network trained and the graph of packs traced (its time is
printed). 64 configurations are suggested as a search suggests them (random, alike in what a pack holds alike), on
scikit-learn's digits and on a made table of 5,000 rows. Every pack is trained, then its members one by one, so that
both ways see the same load; every trial trains all epochs. What a trial does is the same on both sides: validation
values every epoch and a resumable state on disk. KerasTuner's rate is that of its BayesianOptimization over the same
space, rows and epochs, in a process of its own, warm too.

Printed: seconds per trial of each way and their ratio, by width and together; whether the best validation values of
both ways are equal in distribution (Kolmogorov-Smirnov); the memory that each way took at its peak beyond what the
process had; medians over the seeds. About 15 minutes on 2 cores with three seeds; `--quick` takes about 2.

To reach: 12 times one by one on digits, 8 times on the table, 20 times KerasTuner on digits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pandas as pd
from benchmark_tables import digits_table, mixed_table
from measurement import machine_line, verdict
from peer_process import keras_peer
from scipy.stats import ks_2samp
from tamiz_search import OBJECTIVE, SPACE, prepare_run

from app.config import Balance, TrainingConfig
from app.evaluation.metrics import METRICS
from app.execution.worker_process import keep_freed_memory
from app.run_directory import RunDirectory
from app.search.algorithm import create
from app.search.space import Space
from app.search.trial import Started, Suggestion
from search_spaces.pack_shapes import MAX_PACK, PACK_PARAMETERS, pack_limit, pack_shape

TARGETS = {"digits": 12.0, "5,000 mixed rows": 8.0}
KERAS_TUNER_TARGET = 20.0
TABLES: Mapping[str, Callable[[], pd.DataFrame]] = {
    "digits": digits_table,
    "5,000 mixed rows": lambda: mixed_table(num_rows=5_000),
}


@dataclass
class Side:
    """One way to train the trials.

    Attributes:
        seconds: Width -> wall time of its trials.
        values: Best validation value of every trial.
        memory: Most bytes beyond those before.
    """

    seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    values: list[float] = field(default_factory=list)
    memory: int = 0

    def total(self, widest: int) -> float:
        """Seconds of all trials up to a width."""
        return sum(seconds for width, seconds in self.seconds.items() if width <= widest)


def suggested(space: Space, *, num_trials: int, epochs: int, seed: int) -> Iterator[list[Suggestion]]:
    """Yields packs as a search forms them."""
    algorithm, taken = create("random", space=space, seed=seed, max_epochs=epochs), 0
    while taken < num_trials:
        batch = algorithm.suggest(min(MAX_PACK, num_trials - taken), alike=PACK_PARAMETERS)
        shape = pack_shape(SPACE, batch[0].hyperparameters)
        batch = batch[: pack_limit(shape)]
        algorithm.update(Started(suggestion) for suggestion in batch)
        taken += len(batch)
        yield batch


@contextmanager
def timed(side: Side, width: int) -> Iterator[None]:
    """Adds time and memory of the block to a side."""
    before, stop = _resident(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            side.memory = max(side.memory, _resident() - before)

    watcher, start = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    try:
        yield
    finally:
        side.seconds[width] += time.perf_counter() - start
        stop.set()
        watcher.join()


def compare(directory: RunDirectory, *, num_trials: int, epochs: int, seed: int) -> tuple[Side, Side, dict[int, int]]:
    """Trains all trials in packs and one by one.

    Returns:
        The packs, one by one, and the number of trials by width.
    """
    from app.training.declaration import declare
    from app.training.epochs import EpochResult, Verdict
    from app.training.packing.live import PackMember
    from app.training.packing.pack import MemberEnded, PackTrainer
    from app.training.strategy import prepare_devices
    from app.training.trainer import Trainer
    from app.training.trial_data import load_trial_data

    trainer = Trainer(
        load_trial_data(directory, balance=Balance.NONE),
        space_name=SPACE,
        objective=METRICS[OBJECTIVE],
        placement=prepare_devices(TrainingConfig()),
        max_epochs=epochs,
        patience=epochs + 1,
    )
    space = declare(trainer.space())
    packs, packed, single, counts = PackTrainer(trainer, seed=seed), Side(), Side(), defaultdict[int, int](int)

    def member(suggestion: Suggestion, folder: str, budget: int = epochs) -> PackMember:
        return PackMember(
            number=suggestion.trial,
            values=suggestion.hyperparameters,
            known=space,
            budget=budget,
            seed=seed + suggestion.trial,
            state=directory.path / folder / str(suggestion.trial),
        )

    def train_alone(one: PackMember) -> float:
        curve: list[EpochResult] = []
        trainer.train_trial(
            one.values,
            known=space,
            budget=one.budget,
            seed=one.seed,
            state=one.state,
            report=curve.append,
            ask=lambda: Verdict.GO_ON,
        )
        return min(result.objective for result in curve)

    def train_pack(members: list[PackMember]) -> list[float]:
        best: dict[int, float] = {one.number: float("inf") for one in members}

        def report(number: int, result: EpochResult) -> None:
            best[number] = min(best[number], result.objective)

        def ended(left: MemberEnded) -> None:
            if left.error is not None:
                raise RuntimeError(f"trial {left.number} failed: {left.error}")

        packs.train(members, report=report, ended=ended, ask=set)
        return list(best.values())

    warm_up = next(suggested(space, num_trials=2, epochs=epochs, seed=seed + 1))
    start = time.perf_counter()
    packs.graph.trace()
    print(f"  the graph of packs was traced in {time.perf_counter() - start:.1f} s", flush=True)
    train_pack([member(suggestion, "warm", 1) for suggestion in warm_up])
    train_alone(member(warm_up[0], "warm-alone", 1))
    for batch in suggested(space, num_trials=num_trials, epochs=epochs, seed=seed):
        width = int(batch[0].hyperparameters["width"])
        counts[width] += len(batch)
        with timed(packed, width):
            packed.values += train_pack([member(suggestion, "packed") for suggestion in batch])
        for suggestion in batch:
            with timed(single, width):
                single.values.append(train_alone(member(suggestion, "single")))
    return packed, single, counts


def rate_of_keras_tuner(directory: RunDirectory, *, epochs: int, seconds: float) -> float:
    """Returns the trials that KerasTuner completes in a second."""
    with keras_peer("search", directory=directory.path, epochs=epochs, seconds=seconds) as peer:
        return len(peer.search()) / seconds


def report(name: str, packed: Side, single: Side, counts: Mapping[int, int]) -> float:
    """Prints one seed and returns the ratio over all trials."""
    for width in sorted(counts):
        one, other = packed.seconds[width] / counts[width], single.seconds[width] / counts[width]
        print(
            f"  width {width:4d}: {counts[width]:3d} trials; {one:7.3f} s packed, {other:7.3f} s alone; "
            f"ratio {other / one:5.1f}"
        )
    narrow = single.total(128) / max(packed.total(128), 1e-9)
    ratio = single.total(10**6) / packed.total(10**6)
    p_value = ks_2samp(packed.values, single.values).pvalue
    print(f"  {name}, all {len(packed.values)} trials: ratio {ratio:.1f}; up to width 128: {narrow:.1f}")
    print(
        f"  best {OBJECTIVE}: median {statistics.median(packed.values):.4f} packed, "
        f"{statistics.median(single.values):.4f} alone; equal in distribution (p = {p_value:.2f}): "
        f"{verdict(reached=p_value > 0.05)}"
    )
    print(f"  memory at the peak: {packed.memory / 2**20:.0f} MiB packed, {single.memory / 2**20:.0f} MiB alone")
    print(f"  {machine_line()}", flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one seed, 16 trials, KerasTuner for 20 s")
    parser.add_argument("--epochs", type=int, default=9, help="epochs of every trial [default: 9]")
    parser.add_argument("--table", choices=list(TABLES), help="one table only [default: both]")
    arguments = parser.parse_args()
    keep_freed_memory()
    seeds, num_trials, seconds = ((0,), 16, 20.0) if arguments.quick else ((0, 1, 2), 64, 60.0)
    for name, table in TABLES.items():
        if arguments.table not in (None, name):
            continue
        print(f"{name}: {num_trials} trials of {arguments.epochs} epochs")
        ratios, rates = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory(prefix="packing-") as folder:
                directory = prepare_run(table(), path=Path(folder) / "run", seed=seed, patience=arguments.epochs + 1)
                packed, single, counts = compare(
                    directory, num_trials=num_trials, epochs=arguments.epochs, seed=seed
                )
                ratios.append(report(f"seed {seed}", packed, single, counts))
                if name == "digits":
                    peer = rate_of_keras_tuner(directory, epochs=arguments.epochs, seconds=seconds)
                    if not peer:
                        print("  KerasTuner completed no trial: not measured; this machine has too much load")
                        continue
                    rates.append(len(packed.values) / packed.total(10**6) / peer)
                    print(f"  KerasTuner: {peer:.3f} trials per second; packs are {rates[-1]:.1f} times as fast")
        median, target = statistics.median(ratios), TARGETS[name]
        print(f"  median ratio {median:.1f}; at least {target:.0f}: {verdict(reached=median >= target)}")
        if rates:
            reached = statistics.median(rates) >= KERAS_TUNER_TARGET
            print(f"  median over KerasTuner {statistics.median(rates):.1f}; at least 20: {verdict(reached=reached)}")


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
