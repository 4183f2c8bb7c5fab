"""How many rows a second reach `model.fit`, by where they come from.

Measured: `fit` of one small network (20 numbers, one hidden layer of 64) over the same rows for the same number of
steps, in the second epoch of each call; the first is told beside it, for it holds the graph of the dataset, which a
trial pays for once. By

    memory        `pipelines.input_pipeline.training_batches` on tensors
    shards        `pipelines.shards.shard_batches` on encoded rows on disk
    CSV, first    tamiz from the CSV file: one epoch, in which it is read, stored, and trained from shards
    PyDataset     a `keras.utils.PyDataset` that indexes NumPy arrays in a shuffled order
    make_csv      `tf.data.experimental.make_csv_dataset` on the CSV file, shuffled in its default buffer

The sides take turns in one process, so that a busy machine slows all of them; the first turn, which traces the network,
is not counted. To reach: shards at 0.9 of memory for batches of 256 rows and more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import tensorflow as tf
from measurement import Measurement, machine_line, ratios, verdict

from pipelines.input_pipeline import training_batches
from pipelines.shards import ShardFile, Shards, shard_batches
from pipelines.sources import ReadOptions, open_source
from pipelines.stored_rows import store_rows

WIDTH, TARGET_RATIO = 20, 0.9
FIRST_PASS = "CSV, first"
NAMES = [f"x{place}" for place in range(WIDTH)]


class EpochClock(keras.callbacks.Callback):  # type: ignore[misc]
    """When each epoch ended, by the clock and in CPU time of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes it."""
        del epoch, logs
        self.ends.append((time.perf_counter(), time.process_time()))


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of `fit`.

    Attributes:
        begun: Seconds of the first epoch, with all that comes before it.
        seconds: Those of the epoch that counts.
        cpu: CPU seconds of the epoch that counts.
    """

    begun: float
    seconds: float
    cpu: float


class Rows(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of NumPy arrays in an order that changes every epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int) -> None:
        super().__init__(workers=1)
        self._x, self._y, self._size = x, y, batch_size
        self._order = np.random.default_rng(0).permutation(len(x))

    def __len__(self) -> int:
        return len(self._x) // self._size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[index * self._size : (index + 1) * self._size]
        return self._x[rows], self._y[rows]

    def on_epoch_end(self) -> None:
        """Shuffles."""
        np.random.default_rng(1).shuffle(self._order)


def network() -> keras.Model:
    """Returns the network that all sides train."""
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    return model


def on_disk(x: np.ndarray, folder: Path) -> Shards:
    """Writes encoded rows as tamiz keeps them."""
    path = folder / "numeric.npy"
    np.save(path, x)
    offset = np.load(path, mmap_mode="r").offset
    return Shards(files={"numeric": ShardFile(path=path, offset=offset, width=WIDTH, dtype=x.dtype)}, num_rows=len(x))


def from_csv(path: Path, y: np.ndarray, folder: Path, batch_size: int) -> Any:
    """Reads the CSV file once and returns batches from what was stored."""
    stored = store_rows(open_source(str(path)), ReadOptions(), folder=folder)
    parts = [np.stack([chunk[name].to_numpy() for name in NAMES], axis=1) for _, chunk in stored.chunks()]
    return shard_data(on_disk(np.concatenate(parts).astype(np.float32), folder), y, batch_size)


def shard_data(shards: Shards, y: np.ndarray, batch_size: int) -> Any:
    """Returns batches from disk as `fit` takes them."""
    def as_pair(batch: Any, _: tf.Tensor) -> Any:
        return batch[0]["numeric"], batch[1]

    return shard_batches(shards, (tf.constant(y),), batch_size=batch_size, seed=0, change=as_pair)


def sides(folder: Path, x: np.ndarray, y: np.ndarray, *, batch_size: int) -> dict[str, Callable[[], Any]]:
    """Returns what makes the data of each side."""
    path = folder / "rows.csv"
    if not path.exists():
        pa.csv.write_csv(pa.table({**dict(zip(NAMES, x.T, strict=True)), "y": y[:, 0]}), path)
    shards, tensors = on_disk(x, folder), (tf.constant(x), tf.constant(y))

    def make_csv() -> Any:
        data = tf.data.experimental.make_csv_dataset(
            str(path), batch_size, label_name="y", column_defaults=[tf.float32] * (WIDTH + 1), num_epochs=None
        )
        return data.map(lambda columns, label: (tf.stack([columns[name] for name in NAMES], axis=1), label))

    return {
        "memory": lambda: training_batches(tensors, num_rows=len(x), batch_size=batch_size, seed=0),
        "shards": lambda: shard_data(shards, y, batch_size),
        FIRST_PASS: lambda: from_csv(path, y, folder, batch_size),
        "PyDataset": lambda: Rows(x, y, batch_size),
        "make_csv": make_csv,
    }


def measure(folder: Path, x: np.ndarray, y: np.ndarray, *, batch_size: int, turns: int) -> None:
    """Prints rows a second and the ratio to memory for one size of batch."""
    steps = len(x) // batch_size
    made = sides(folder, x, y, batch_size=batch_size)
    models = {name: network() for name in made}
    found: dict[str, list[Turn]] = {name: [] for name in made}
    for turn in range(turns + 1):
        for name, make in made.items():
            one = one_turn(models[name], make, steps=steps, is_first_pass=name == FIRST_PASS)
            if turn:
                found[name].append(one)
    memory = found["memory"]
    print(f"batches of {batch_size} rows, {steps:,} steps an epoch, {turns} turns")
    for name, times in found.items():
        side = Measurement(name, [one.seconds for one in times])
        ratio = 1.0 / ratios(side, Measurement("memory", [one.seconds for one in memory])).median
        cpu = statistics.median(other.cpu / one.cpu for one, other in zip(times, memory, strict=True))
        begun = statistics.median(one.begun for one in times)
        reached = f" ({verdict(reached=ratio >= TARGET_RATIO)})" if name == "shards" else ""
        print(
            f"  {name:<12} {steps * batch_size / side.median:12,.0f} rows/s   {ratio:5.2f} of memory{reached}, "
            f"{cpu:5.2f} by CPU time; first epoch {begun:.2f} s",
            flush=True,
        )


def one_turn(model: keras.Model, make: Callable[[], Any], *, steps: int, is_first_pass: bool) -> Turn:
    """Trains two epochs, or the one that reads the file."""
    clock, start, cpu = EpochClock(), time.perf_counter(), time.process_time()
    epochs = 1 if is_first_pass else 2
    model.fit(make(), steps_per_epoch=steps, epochs=epochs, verbose=0, callbacks=[clock])
    ends = [(start, cpu), *clock.ends]
    before, after = ends[-2], ends[-1]
    return Turn(begun=ends[1][0] - start, seconds=after[0] - before[0], cpu=after[1] - before[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    print(machine_line())
    generator = np.random.default_rng(0)
    x = generator.normal(size=(arguments.rows, WIDTH)).round(4).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in (256, 1_024):
            measure(Path(folder), x, y, batch_size=batch_size, turns=arguments.turns)


if __name__ == "__main__":
    main()
