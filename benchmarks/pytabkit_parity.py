"""RealMLP and TabM at their defaults: tamiz' Keras networks beside the authors' PyTorch ones (PyPI's pytabkit).

    python benchmarks/pytabkit_parity.py --environments FOLDER [--tables credit ...] [--families realmlp tabm]
                                         [--seeds 3] [--store FOLDER]

Both sides learn from the same training rows, choose their best epoch by the same validation rows (15 %) and metric, and
are judged on the same other rows (25 %); no search, no ensemble, no second training. RealMLP has its paper's 256 epochs
and, as its authors advise for AUC, no label smoothing. TabM has the size that tamiz starts with and bins for its
numbers, against pytabkit's three layers of 32 members and width 512 without bins, so that the price of the smaller one
is seen.

pytabkit runs in a virtual environment of its own, made in --environments at its first use. Printed for each table: the
mean of both sides over the seeds, and the mean of the differences with its standard error; a difference within two of
those is noise. To reach: level within noise, or better.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch==2.13.0", "pytabkit==1.7.3", "pytorch-lightning", "torchmetrics", "skorch", "pyarrow")
FAMILIES = ("realmlp", "tabm")
REALMLP_EPOCHS = 256
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.25
PEER_METRICS = {"roc_auc": "1-auc_ovr", "log_loss": "cross_entropy", "rmse": "rmse"}


def peer_python(environments: Path) -> Path:
    """Returns the Python that has pytabkit, with its environment made."""
    folder = environments.absolute() / "pytabkit"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "ready").touch()
    return python


def run_peer(path: Path) -> None:
    """Trains one of pytabkit's networks as ``path`` asks and writes its answers; runs in its environment."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor, TabM_D_Classifier, TabM_D_Regressor

    request = json.loads(path.read_text())
    parts = {name: pd.read_parquet(path.parent / f"{name}.parquet") for name in ("train", "validation", "test")}
    targets = {name: frame.pop(request["target"]).to_numpy() for name, frame in parts.items()}
    regression = request["metric"] == "rmse"
    own: dict[str, Any] = {}
    if request["family"] == "realmlp" and not regression:
        own["use_ls"] = False
    kinds = {
        ("realmlp", False): RealMLP_TD_Classifier,
        ("realmlp", True): RealMLP_TD_Regressor,
        ("tabm", False): TabM_D_Classifier,
        ("tabm", True): TabM_D_Regressor,
    }
    model = kinds[request["family"], regression](
        device="cpu", random_state=request["seed"], val_metric_name=PEER_METRICS[request["metric"]], **own
    )
    start = time.monotonic()
    texts = [name for name in parts["train"] if not pd.api.types.is_numeric_dtype(parts["train"][name])]
    if not regression:
        targets = {name: values.astype(str) for name, values in targets.items()}
    model.fit(
        parts["train"], targets["train"], X_val=parts["validation"], y_val=targets["validation"], cat_col_names=texts
    )
    answers = model.predict(parts["test"]) if regression else model.predict_proba(parts["test"])
    classes = [] if regression else [str(name) for name in model.classes_]
    np.savez(path.with_name("answers.npz"), values=answers, classes=classes, seconds=time.monotonic() - start)


def train_tamiz(name: str, *, family: str, seed: int, folder: Path) -> dict[str, float]:
    """Returns the metric and the seconds of tamiz' network, and writes the same rows for the peer."""
    from real_tables import TABLES

    from app.config import DataConfig, ExperimentConfig, SearchConfig
    from app.data_files import SPLIT_COLUMN, read_arrow, write_data
    from app.data_source import read_source
    from app.data_stage import prepare_data
    from app.run_directory import RunDirectory
    from pipelines.splits import Split

    table = TABLES[name]
    frame = table.frame()
    config = ExperimentConfig(
        name=name,
        data=DataConfig(target=table.target, validation_share=VALIDATION_SHARE, test_share=TEST_SHARE),
        search=SearchConfig(space=family, objective=table.metric, seed=seed),
    )
    directory = RunDirectory(folder / "run")
    data = prepare_data(read_source(frame, config), config)
    with directory.staged() as staged:
        write_data(data, config, directory=staged)
    development = read_arrow(directory.development_file)
    splits = development.column(SPLIT_COLUMN).to_numpy()
    columns = [feature.name for feature in data.schema.used_features] + [table.target]
    train = development.select(columns).filter(splits == Split.TRAIN).to_pandas()
    validation = development.select(columns).filter(splits == Split.VALIDATION).to_pandas()
    test = read_arrow(directory.test_file).select(columns).to_pandas()
    for part, rows in (("train", train), ("validation", validation), ("test", test)):
        without_gaps(rows, train).to_parquet(folder / f"{part}.parquet")
    return _trained(directory, config, seed=seed, state=folder / "state")


def without_gaps(frame: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Returns rows without missing values, which pytabkit does not take: training medians, or a category of its own."""
    filled = {
        name: column.fillna(train[name].median()) if pd.api.types.is_numeric_dtype(column) else column.fillna("missing")
        for name, column in frame.items()
    }
    return pd.DataFrame(filled)


def _trained(directory: Any, config: Any, *, seed: int, state: Path) -> dict[str, float]:
    from app.data_files import read_arrow
    from app.evaluation.metrics import METRICS
    from app.training.declaration import declare
    from app.training.epochs import Verdict
    from app.training.strategy import prepare_devices
    from app.training.trainer import Trainer
    from app.training.trial_data import encode_rows, load_trial_data
    from app.training.trial_network import network_of_trial

    metric = METRICS[config.search.objective]
    data = load_trial_data(directory, balance=config.training.balance)
    epochs = REALMLP_EPOCHS if config.search.space == "realmlp" else 100
    trainer = Trainer(
        data,
        space_name=config.search.space,
        objective=metric,
        placement=prepare_devices(config.training),
        max_epochs=epochs,
        patience=config.training.patience,
    )
    space = declare(trainer.space())
    values = dict(space.default())
    start = time.monotonic()
    trainer.train_trial(
        values, known=space, budget=epochs, seed=seed, state=state, report=lambda _: None, ask=lambda: Verdict.GO_ON
    )
    seconds = time.monotonic() - start
    network = network_of_trial(trainer, trainer.part, values=values, state=state)
    rows = encode_rows(read_arrow(directory.test_file), data.schema, data.encoder)
    return {"value": metric.value(trainer.predict(network.model, network.answers, rows)), "seconds": seconds}


def peer_result(folder: Path, *, metric: str, target: str) -> dict[str, float]:
    """Returns the metric and the seconds of what the peer answered."""
    from sklearn.metrics import log_loss, roc_auc_score

    truth = pd.read_parquet(folder / "test.parquet")[target]
    with np.load(folder / "answers.npz", allow_pickle=False) as answers:
        values, classes, seconds = answers["values"], [str(name) for name in answers["classes"]], answers["seconds"]
    if metric == "rmse":
        value = float(np.sqrt(np.mean((truth.to_numpy(np.float64) - values.reshape(-1)) ** 2)))
    elif metric == "roc_auc":
        value = float(roc_auc_score(truth.astype(str) == classes[1], values[:, 1]))
    else:
        value = float(log_loss(truth.astype(str), values, labels=classes))
    return {"value": value, "seconds": float(seconds)}


def measure(name: str, *, family: str, seed: int, store: Path, python: Path) -> Mapping[str, Mapping[str, float]]:
    """Returns both sides on one split of a table; from the store when they are there."""
    from real_tables import TABLES

    known = store / f"{name}-{family}-{seed}.json"
    if known.exists():
        found: Mapping[str, Mapping[str, float]] = json.loads(known.read_text())
        return found
    store.mkdir(parents=True, exist_ok=True)
    table = TABLES[name]
    with tempfile.TemporaryDirectory(dir=store) as place:
        folder = Path(place)
        tamiz = train_tamiz(name, family=family, seed=seed, folder=folder)
        request = {"family": family, "metric": table.metric, "target": table.target, "seed": seed}
        (folder / "request.json").write_text(json.dumps(request))
        quiet = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        command = [str(python), str(Path(__file__)), "--peer", str(folder / "request.json")]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, env=quiet)
        if ran.returncode:
            raise RuntimeError(f"pytabkit failed on {name}: {ran.stderr[-2000:]}")
        peer = peer_result(folder, metric=table.metric, target=table.target)
    found = {"tamiz": tamiz, "pytabkit": peer}
    known.write_text(json.dumps(found))
    return found


def told(name: str, family: str, metric: str, results: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Returns one line about a table."""
    sides = {side: [one[side]["value"] for one in results] for side in ("tamiz", "pytabkit")}
    sign = 1.0 if metric == "roc_auc" else -1.0
    gains = [sign * (ours - theirs) for ours, theirs in zip(sides["tamiz"], sides["pytabkit"], strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    gain = statistics.fmean(gains)
    verdict = "noise" if abs(gain) <= 2 * error else "better" if gain > 0 else "worse"
    seconds = {side: statistics.median(one[side]["seconds"] for one in results) for side in sides}
    return (
        f"{name:<16}{family:<9}{metric:<9} tamiz {statistics.fmean(sides['tamiz']):.5g} ({seconds['tamiz']:.0f} s)  "
        f"pytabkit {statistics.fmean(sides['pytabkit']):.5g} ({seconds['pytabkit']:.0f} s)  "
        f"gain {gain:+.3g} ± {error:.2g}: {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--environments", type=Path, default=Path("runs/benchmark/environments"))
    parser.add_argument("--store", type=Path, default=Path("runs/benchmark/pytabkit"))
    parser.add_argument("--tables", nargs="+", default=["credit", "attrition", "cells", "ames", "concrete"])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.peer is not None:
        run_peer(given.peer)
        return
    sys.path.insert(0, str(ROOT))
    from real_tables import TABLES

    python = peer_python(given.environments)
    for family in given.families:
        for name in given.tables:
            results = [
                measure(name, family=family, seed=seed, store=given.store.absolute(), python=python)
                for seed in range(given.seeds)
            ]
            print(told(name, family, TABLES[name].metric, results), flush=True)


if __name__ == "__main__":
    main()
