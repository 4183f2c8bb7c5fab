"""Whether a table larger than memory is searched in bounded memory, and how fast it is read.

Made with a fixed seed: 10 million rows of 20 columns (numbers, whole numbers, truths, categories of 4 to 5,000
values, dates, gaps, an amount with a long tail, and a target that depends on some of them), as CSV and as Parquet.

Measured, each in a process of its own: the one pass that reads the file, settles types and stores the rows (MB of CSV
a second); profile and splits; encoding by a worker; and with --time a whole search that ends with an export. Memory is
the peak of private anonymous pages (RssAnon: what a process holds for itself) and of all resident pages (RSS, which
counts the mapped files that the kernel can drop at any time), sampled from /proc every 50 ms.

To reach: at most 1.5 GB of anonymous memory for the coordinator and for the worker, and 150 MB of CSV a second.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from measurement import machine_line, verdict

TARGET_BYTES, TARGET_SPEED = 1.5e9, 150.0
TARGET = "bought"
PART_ROWS = 250_000


def make_part(num_rows: int, generator: np.random.Generator) -> pa.Table:
    """Returns some rows."""
    columns: dict[str, Any] = {}
    for place in range(8):
        gaps = generator.random(num_rows) < 0.05 if place < 2 else None
        columns[f"x{place}"] = pa.array(generator.normal(size=num_rows).round(4), mask=gaps)
    for place in range(4):
        columns[f"n{place}"] = pa.array(generator.integers(0, 10 ** (place + 1), num_rows))
    columns["member"] = pa.array(generator.random(num_rows) < 0.3)
    codes = {}
    for place, number in enumerate((4, 20, 500, 5_000)):
        codes[place] = generator.integers(0, number, num_rows)
        words = pa.array([f"v{code}" for code in range(number)])
        columns[f"c{place}"] = words.take(pa.array(codes[place]))
    days = np.datetime_as_string(np.datetime64("2015-01-01") + np.arange(3_000))
    columns["day"] = pa.array(days.tolist()).take(pa.array(generator.integers(0, 3_000, num_rows)))
    columns["amount"] = pa.array(generator.lognormal(3.0, 1.0, num_rows).round(2))
    noise = generator.normal(size=num_rows)
    signal = columns["x2"].to_numpy() + (codes[1] % 3) - columns["n0"].to_numpy() / 5.0 + noise
    columns[TARGET] = pa.array(["no", "yes"]).take(pa.array((signal > 0.5).astype(np.int64)))
    return pa.table(columns)


def make_table(folder: Path, num_rows: int, ending: str) -> Path:
    """Writes the table unless it is there, and returns its file."""
    path = folder / f"rows-{num_rows}.{ending}"
    if path.exists():
        return path
    generator, partial = np.random.default_rng(0), path.with_suffix(".partial")
    writer: Any = None
    for start in range(0, num_rows, PART_ROWS):
        part = make_part(min(PART_ROWS, num_rows - start), generator)
        if writer is None:
            kind = pa.csv.CSVWriter if ending == "csv" else pq.ParquetWriter
            writer = kind(str(partial), part.schema)
        writer.write_table(part)
    writer.close()
    partial.rename(path)
    return path


@dataclass(frozen=True, slots=True)
class Peak:
    """Peaks of a process in bytes."""

    anonymous: int
    resident: int

    def __str__(self) -> str:
        return f"{self.anonymous / 1e9:5.2f} GB anonymous, {self.resident / 1e9:5.2f} GB resident"


def memory_of(pid: int) -> Peak:
    """Returns what a process holds now; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return Peak(0, 0)
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return Peak(found.get("RssAnon", 0), found.get("VmRSS", 0))


@contextmanager
def watched_memory(pids: Callable[[], dict[int, str]]) -> Iterator[dict[str, Peak]]:
    """Yields the peaks by name of process, filled in as they grow."""
    peaks: dict[str, Peak] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for pid, name in pids().items():
                now, known = memory_of(pid), peaks.get(name, Peak(0, 0))
                peaks[name] = Peak(max(now.anonymous, known.anonymous), max(now.resident, known.resident))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job took, without the start of the interpreter.

    Attributes:
        seconds: Of the clock.
        cpu: Of all processors together; a busy machine changes them less.
        peak: Its memory.
    """

    seconds: float
    cpu: float
    peak: Peak


def in_own_process(job: Callable[..., None], *arguments: Any) -> Cost:
    """Runs a job in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_timed, args=(theirs, job, arguments))
    process.start()
    theirs.close()  # a job that fails is seen by the end of its connection
    pid = int(process.pid or 0)
    with watched_memory(lambda: {pid: "job"}) as peaks:
        seconds, cpu = ours.recv()
        process.join()
    return Cost(seconds, cpu, peaks["job"])


def _timed(connection: Any, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    job(*arguments)
    connection.send((time.perf_counter() - start, time.process_time() - cpu))


def one_pass(path: Path, folder: Path) -> None:
    """Reads the file once: types, identities, rows on disk, fingerprint."""
    from concurrent.futures import ThreadPoolExecutor

    from pipelines.sources import ReadOptions, open_source
    from pipelines.stored_rows import store_rows

    source = open_source(str(path))
    with ThreadPoolExecutor(1) as pool:
        prints = pool.submit(source.prints)
        store_rows(source, ReadOptions(), folder=folder)
        prints.result()


def profile_and_split(path: Path, folder: Path) -> None:
    """Does all that the coordinator does before a search."""
    from app.config import DataConfig, ExperimentConfig
    from app.large_data import prepare_large, write_large
    from app.read_rows import store_source
    from app.run_directory import RunDirectory
    from pipelines.sources import open_source

    config = ExperimentConfig(data=DataConfig(source=str(path), target=TARGET))
    data = prepare_large(store_source(open_source(str(path)), config, folder=folder), config)
    with RunDirectory(folder / f"run-{path.suffix[1:]}").staged() as staged:
        write_large(data, config, directory=staged)


def encode(directory: Path) -> None:
    """Does what the first worker does: encodes the rows."""
    from app.run_directory import RunDirectory
    from app.training.trial_data import load_trial_data
    from pipelines.balance import Balance

    load_trial_data(RunDirectory(directory), balance=Balance.AUTO)


def search(path: Path, folder: Path, seconds: str) -> None:
    """Searches until the time is up, and prints the peaks of coordinator and workers."""
    import subprocess
    import sys

    run = folder / "searched"
    command = [sys.executable, "-m", "app.cli", "search", str(path), "--target", TARGET, "--time", seconds]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--run", str(run)], stdout=subprocess.DEVNULL)

    def pids() -> dict[int, str]:
        return {process.pid: "coordinator"} | dict.fromkeys(children_of(process.pid), "worker")

    with watched_memory(pids) as peaks:
        code = process.wait()
    exported = sorted((run / "export").glob("*/1/saved_model.pb"))
    print(f"search with --time {seconds}: {time.perf_counter() - start:.0f} s, exit {code}, export {len(exported)}")
    for name, peak in sorted(peaks.items()):
        print(f"  {name:<12} {peak}   ({verdict(reached=peak.anonymous <= TARGET_BYTES)})")
    print(f"  ended with an export: {verdict(reached=bool(exported) and code == 0)}")


def children_of(pid: int) -> set[int]:
    """Returns all descendants of a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def told(name: str, cost: Cost, *, megabytes: float = 0.0) -> None:
    """Prints one line."""
    fast = ""
    if megabytes:
        speed = megabytes / cost.seconds
        reached = verdict(reached=speed >= TARGET_SPEED)
        fast = f"   {speed:.0f} MB/s ({reached}), {megabytes / cost.cpu:.0f} MB a CPU second"
    bounded = verdict(reached=cost.peak.anonymous <= TARGET_BYTES)
    print(f"{name:<22} {cost.seconds:8.1f} s {cost.cpu:8.1f} CPU s   {cost.peak} ({bounded}){fast}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the tables are kept [default: a temporary folder]")
    parser.add_argument("--time", default="", help="search as long as this, such as 10m [default: no search]")
    parser.add_argument("--format", choices=("csv", "parquet", "both"), default="both")
    arguments = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("csv", "parquet") if arguments.format == "both" else (arguments.format,):
            path = make_table(folder, arguments.rows, ending)
            megabytes = path.stat().st_size / 1e6
            print(f"{ending}: {arguments.rows:,} rows, 20 columns, {megabytes:,.0f} MB")
            with tempfile.TemporaryDirectory(dir=folder) as work:
                told("one pass", in_own_process(one_pass, path, Path(work)), megabytes=megabytes * (ending == "csv"))
                told("profile, splits, files", in_own_process(profile_and_split, path, Path(work)))
                told("encode (worker)", in_own_process(encode, Path(work) / f"run-{ending}"))
                if arguments.time:
                    search(path, Path(work), arguments.time)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
