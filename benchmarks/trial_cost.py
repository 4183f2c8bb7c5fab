"""What a trial costs beyond training: one network of the mlp space, trained by tamiz, plain Keras and KerasTuner.

Measured: wall time of one trial of the space's default configuration on scikit-learn's digits, about 1,200 training
and 300 validation rows, the same encoded rows and number of epochs for all, no early stopping. Each side is a warm
process (TensorFlow imported, rows in memory); one round is not counted, then they take turns: A B C, A B C, ...

    plain Keras    build, compile and `model.fit` with the validation loss every epoch; saves nothing.
    tamiz          a trial as `tamiz search` runs it, on the coordinator's clock: the suggestion, the messages to and
                   from the worker, build, training, the objective and the validation loss every epoch, the whole
                   resumable state (optimizer included) on disk every epoch, journal and TensorBoard files.
    KerasTuner     a trial of `RandomSearch`: decision, build, `fit` with the validation loss every epoch, weights of
                   the best epoch and the trial's files on disk. No resumable state, no TensorBoard files.

To reach: tamiz / plain Keras at most 1.10.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmark_tables import digits_table
from measurement import Measurement, machine_line, ratio_line, verdict
from peer_process import keras_peer
from tamiz_search import opened_search, prepare_run, single_configuration

TARGET_RATIO = 1.10
HELD_OUT = 1.0 / 6.0
"""Share of validation rows, and again of sealed test rows: 1,200 of 1,797 rows are left to train on."""


def measure(path: Path, *, epochs: int, rounds: int) -> dict[str, Measurement]:
    """Returns the wall time of a trial by side.

    Args:
        path: An empty folder.
        epochs: Epochs of every trial.
        rounds: Trials of every side that are counted.
    """
    directory = prepare_run(digits_table(), path=path / "run", seed=0, patience=epochs, held_out=HELD_OUT)
    with opened_search(directory, max_epochs=epochs) as search:
        values = dict(search.space.default())
        space = single_configuration(search.space)
        search.begin("random", space)
        with (
            keras_peer("plain", directory=directory.path, epochs=epochs, values=values) as plain,
            keras_peer("keras-tuner", directory=directory.path, epochs=epochs, values=values) as tuner,
        ):
            taken = [
                (plain.run_trial(), *search.run_one_more(space), tuner.run_trial()) for _ in range(rounds + 1)
            ][1:]
    names = ("plain Keras", "tamiz", "tamiz, worker alone", "KerasTuner")
    return {name: Measurement(name, column) for name, column in zip(names, zip(*taken, strict=True), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 10 epochs instead of 5 rounds of 30")
    quick = parser.parse_args().quick
    epochs, rounds = (10, 3) if quick else (30, 5)
    before = machine_line()
    with tempfile.TemporaryDirectory(prefix="trial-cost-") as folder:
        measured = measure(Path(folder), epochs=epochs, rounds=rounds)
    print(f"one trial of {epochs} epochs on 1,200 rows of digits; before: {before}; after: {machine_line()}")
    for measurement in measured.values():
        print(f"  {measurement}")
    plain, tamiz, tuner = (measured[name] for name in ("plain Keras", "tamiz", "KerasTuner"))
    reached = verdict(reached=tamiz.median <= TARGET_RATIO * plain.median)
    print(f"{ratio_line(tamiz, plain)}; at most {TARGET_RATIO:.2f}: {reached}")
    print(ratio_line(tuner, plain))


if __name__ == "__main__":
    main()
