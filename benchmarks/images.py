"""Images: tamiz beside KerasTuner, AutoKeras and a fixed ResNet-20, the same files, the same minutes, two cores.

    python benchmarks/images.py --environments FOLDER [--seconds 300] [--seeds 3] [--sets digits crops]
                                [--systems tamiz KerasTuner ...] [--store FOLDER]

Needs `pip install scikit-image` for the photographs of the harder set (`image_sets.py`). AutoKeras runs on the Keras
that it was written for, in a virtual environment made in --environments at its first use. Answers are kept in --store,
so an interrupted run goes on where it was. One process runs at a time.

Printed for each set: accuracy on the files that judge, the median over the seeds; the weights of the answering network;
the seconds that a system took in all. To reach on both sets: accuracy above all others', with fewer weights than the
best of them. 2 sets x 4 systems x 3 seeds x 6 minutes: 2.5 hours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from image_sets import SETS, read
from measurement import machine_line, verdict
from tables import SEALED_SHARE, interpreter

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("image_systems.py")
TAMIZ = "tamiz"
SYSTEMS = (TAMIZ, "KerasTuner", "AutoKeras", "ResNet-20")


@dataclass(frozen=True, slots=True)
class Result:
    """One system on one set.

    Attributes:
        accuracy: On the files that judge; NaN when the system failed.
        num_parameters: Weights of what answered.
        seconds: Wall time, start of its process included.
        reason: Why it failed.
    """

    accuracy: float
    num_parameters: int
    seconds: float
    reason: str = ""


def write_set(name: str, folder: Path) -> None:
    """Writes a set as folders of files and, for the peers, as arrays; once."""
    if (folder / "test.npz").exists():
        return
    SETS[name](folder)
    for part in ("train", "test"):
        images, labels = read(folder / part)
        np.savez(folder / f"{part}.npz", images=images, labels=np.asarray(labels, dtype=str))


def run_peer(system: str, request: dict[str, Any], folder: Path, *, environments: Path) -> tuple[list[str], int]:
    """Returns a peer's labels for the test files and the weights of its network."""
    request = {**request, "answers": str(folder / "answers.npz")}
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    # The ResNet needs what this program runs with.
    python = sys.executable if system == "ResNet-20" else interpreter(system, environments)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with open(folder / "log.txt", "wb") as log:
        subprocess.run(
            [python, str(PROGRAM), system, str(path)],
            check=True,
            stdout=log,
            stderr=log,
            env=os.environ | quiet,
            timeout=10 * request["seconds"] + 900,
        )
    with np.load(request["answers"], allow_pickle=False) as answers:
        return [str(label) for label in answers["labels"]], int(answers["num_parameters"])


def run_tamiz(data: Path, folder: Path, *, seconds: int, seed: int) -> tuple[list[str], int]:
    """Returns tamiz' labels for the test files and the weights of what it exported: search, then `tamiz predict`."""
    run, answers, settings = folder / "run", folder / "answers.csv", folder / "settings.toml"
    # The files that judge are apart already; no peer seals a second part of those it learns from.
    settings.write_text(f'[data]\ntest_share = {SEALED_SHARE}\n[search]\nobjective = "accuracy"\n')
    tamiz = [sys.executable, "-m", "app.cli"]
    search = ["search", str(data / "train"), "--time", f"{seconds}s", "--run", str(run), "--seed", str(seed)]
    predict = ["predict", str(run), str(data / "test"), "--key", "image", "--output", str(answers)]
    with open(folder / "log.txt", "wb") as log:
        for command in ([*search, "--config", str(settings)], predict):
            subprocess.run([*tamiz, *command], check=True, stdout=log, stderr=log, cwd=ROOT)
    # A class called 3 is a number to a reader of CSV files.
    frame = pd.read_csv(answers, dtype=str).set_index("image")
    files = sorted((data / "test").rglob("*.png"))
    labels = [str(frame.loc[file.relative_to(data / "test").as_posix(), "label"]) for file in files]
    return labels, num_weights(next((run / "export").glob("*/*/variables")))


def num_weights(variables: Path) -> int:
    """Returns the numbers in the floating-point variables of a SavedModel."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(variables / "variables"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if types[name].is_floating)


def measure(system: str, name: str, *, seconds: int, seed: int, store: Path, environments: Path) -> Result:
    """Returns what a system reaches on a set; from the store when it is there."""
    data = store / name
    write_set(name, data)
    folder = store / "answers" / f"{name}-{system}-{seconds}s-{seed}"
    known = folder / "result.json"
    if known.exists():
        return Result(**json.loads(known.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    request = {"train": str(data / "train.npz"), "test": str(data / "test.npz"), "seconds": seconds, "seed": seed}
    start = time.monotonic()
    try:
        if system == TAMIZ:
            labels, weights = run_tamiz(data, folder, seconds=seconds, seed=seed)
        else:
            labels, weights = run_peer(system, request, folder, environments=environments)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        return Result(float("nan"), 0, time.monotonic() - start, f"{type(error).__name__}: {''.join(last)}"[:200])
    took = time.monotonic() - start
    truth = np.load(data / "test.npz")["labels"]
    result = Result(float(np.mean(truth == np.asarray(labels))), weights, took)
    known.write_text(json.dumps(asdict(result)))
    return result


def report(name: str, results: Mapping[str, Sequence[Result]]) -> None:
    """Prints the medians of one set and what was to be reached."""
    medians: dict[str, tuple[float, float]] = {}
    print(f"{name:<12}{'accuracy':>10}{'weights':>12}{'seconds':>9}   each seed")
    for system, each in results.items():
        done = [result for result in each if not result.reason]
        if not done:
            print(f"  {system:<10} failed: {each[0].reason if each else 'no seed'}")
            continue
        accuracy = statistics.median(result.accuracy for result in done)
        weights = statistics.median(result.num_parameters for result in done)
        seconds = statistics.median(result.seconds for result in done)
        medians[system] = (accuracy, weights)
        shown = " ".join(f"{result.accuracy:.4f}" for result in done)
        print(f"  {system:<10}{accuracy:>10.4f}{weights:>12,.0f}{seconds:>9.0f}   {shown}")
    others = {system: found for system, found in medians.items() if system != TAMIZ}
    if TAMIZ in medians and others:
        ours, best = medians[TAMIZ], max(others.values())
        print(f"  accuracy above all others': {verdict(reached=ours[0] > best[0])}", end="; ")
        print(f"fewer weights than the best of them: {verdict(reached=ours[1] < best[1])}")


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--environments", type=Path, required=True, help="where peers get environments of their own")
    parser.add_argument("--store", type=Path, default=Path("image-answers"))
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(f"{options.seconds} s, {options.seeds} seeds; {machine_line()}", flush=True)
    store, environments = options.store.resolve(), options.environments.resolve()
    for name in options.sets:
        results: dict[str, list[Result]] = {system: [] for system in options.systems}
        for seed in range(options.seeds):
            for system in options.systems:
                found = measure(
                    system, name, seconds=options.seconds, seed=seed, store=store, environments=environments
                )
                results[system].append(found)
                print(f"  {name} {system} seed {seed}: {found}", file=sys.stderr, flush=True)
        report(name, results)
    print(machine_line())


if __name__ == "__main__":
    main()
