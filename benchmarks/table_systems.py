"""One system on one table: learns from the training part within its seconds and answers for the test part.

    python table_systems.py SYSTEM REQUEST.json

The request names ``train`` and ``test`` (Parquet), ``target``, ``task``, ``metric``, ``seconds``, ``seed`` and
``answers``, the .npz to write: ``values`` (rows, classes) or (rows,), and ``classes``. Runs in the environment of its
system, so nothing of tamiz is imported here. Rows are given to every system as its users would: as the data frame that
Parquet holds, with text columns as pandas categories where the system asks for that.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from search_clock import SearchClock

CORES = 2
Answers = tuple[np.ndarray, list[str]]


def learned(request: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """Returns training columns, training target, and test columns; texts are categories of the training part."""
    train, test = pd.read_parquet(request["train"]), pd.read_parquet(request["test"])
    target = train.pop(request["target"])
    test = test.drop(columns=[request["target"]])
    if request["task"] != "regression":
        target = target.astype(str)
    for name in train.columns:
        if not pd.api.types.is_numeric_dtype(train[name]):
            kinds = pd.CategoricalDtype(sorted(train[name].dropna().astype(str).unique()))
            train[name], test[name] = train[name].astype(kinds), test[name].astype(kinds)
    return train, target, test


def hist_gradient_boosting(request: Mapping[str, Any]) -> Answers:
    """scikit-learn's HistGradientBoosting with its defaults; it has no search and takes what it takes."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    rows, target, test = learned(request)
    kind = HistGradientBoostingRegressor if request["task"] == "regression" else HistGradientBoostingClassifier
    model = kind(categorical_features="from_dtype", random_state=request["seed"])
    model.fit(rows, target)
    if request["task"] == "regression":
        return model.predict(test), []
    return model.predict_proba(test), [str(name) for name in model.classes_]


def flaml(request: Mapping[str, Any]) -> Answers:
    """FLAML's AutoML over its gradient boosters and forests."""
    from flaml import AutoML

    rows, target, test = learned(request)
    metric = {"roc_auc": "roc_auc", "log_loss": "log_loss", "rmse": "rmse"}[request["metric"]]
    task = "regression" if request["task"] == "regression" else "classification"
    model = AutoML()
    model.fit(
        rows,
        target,
        task=task,
        metric=metric,
        time_budget=request["seconds"],
        n_jobs=CORES,
        seed=request["seed"],
        verbose=0,
    )
    if task == "regression":
        return np.asarray(model.predict(test)), []
    return np.asarray(model.predict_proba(test)), [str(name) for name in model.classes_]


def autogluon(request: Mapping[str, Any]) -> Answers:
    """AutoGluon with the preset `medium_quality`."""
    return _autogluon(request, presets="medium_quality")


def autogluon_network(request: Mapping[str, Any]) -> Answers:
    """AutoGluon's own network alone."""
    return _autogluon(request, hyperparameters={"NN_TORCH": {}})


def _autogluon(request: Mapping[str, Any], **settings: Any) -> Answers:
    from autogluon.tabular import TabularPredictor

    train, test = pd.read_parquet(request["train"]), pd.read_parquet(request["test"])
    target = request["target"]
    if request["task"] != "regression":
        train[target] = train[target].astype(str)
    metric = {"roc_auc": "roc_auc", "log_loss": "log_loss", "rmse": "root_mean_squared_error"}[request["metric"]]
    with tempfile.TemporaryDirectory() as folder:
        model = TabularPredictor(target, problem_type=request["task"], eval_metric=metric, path=folder, verbosity=0)
        model.fit(train, time_limit=request["seconds"], num_cpus=CORES, **settings)
        rows = test.drop(columns=[target])
        if request["task"] == "regression":
            return model.predict(rows).to_numpy(), []
        found = model.predict_proba(rows, as_multiclass=True)
        return found.to_numpy(), [str(name) for name in found.columns]


def autokeras(request: Mapping[str, Any]) -> Answers:
    """AutoKeras' structured data search; no trial starts after its time, and its final training has as much again.

    It takes one array, so numbers are text in it; its encoders stand outside its model, and its `predict` gives labels.
    """
    import autokeras as ak

    rows, target, test = learned(request)
    is_category = {name: isinstance(rows[name].dtype, pd.CategoricalDtype) for name in rows.columns}
    types = {name: "categorical" if categorical else "numerical" for name, categorical in is_category.items()}
    regression = request["task"] == "regression"
    classes = [] if regression else sorted(target.unique())
    wanted = target.to_numpy(np.float64) if regression else target.to_numpy().astype(str)
    # Its validation rows are the last ones, so the order must say nothing.
    order = np.random.default_rng(request["seed"]).permutation(len(rows))

    def cells(frame: pd.DataFrame) -> np.ndarray:
        return frame.astype(object).to_numpy().astype(str)

    kind = ak.StructuredDataRegressor if regression else ak.StructuredDataClassifier
    with tempfile.TemporaryDirectory() as folder:
        model = kind(list(types), types, max_trials=100, directory=folder, seed=request["seed"], objective="val_loss")
        clock = SearchClock(request["seconds"])
        clock.limit(model.tuner.oracle)
        model.fit(cells(rows)[order], wanted[order], callbacks=[clock.callback()], verbose=0)
        if regression:
            return np.asarray(model.predict(cells(test), verbose=0)).reshape(-1), []
        encoder, network = model.tuner.get_best_pipeline(), model.tuner.get_best_model()
        values = network.predict(encoder.transform_x(model._adapt(cells(test), model.inputs)), verbose=0)
        return (np.c_[1.0 - values, values] if len(classes) == 2 else values), classes


def kerastuner(request: Mapping[str, Any]) -> Answers:
    """KerasTuner's Bayesian optimisation over a dense network, as its guides write it, with scikit-learn's encoding."""
    import keras
    import keras_tuner
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows, target, test = learned(request)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (texts, make_column_selector(dtype_include="category")),
    )
    columns = np.asarray(encoder.fit_transform(rows), np.float32)
    regression = request["task"] == "regression"
    classes = [] if regression else sorted(target.unique())
    if regression:
        center, scale = float(target.mean()), float(target.std())
        wanted = ((target.to_numpy() - center) / scale).astype(np.float32)
    else:
        wanted = np.asarray([classes.index(label) for label in target])

    def build(hp: Any) -> Any:
        model = keras.Sequential()
        for layer in range(hp.Int("layers", 1, 4)):
            model.add(keras.layers.Dense(hp.Int(f"units_{layer}", 32, 512, step=32), activation="relu"))
            model.add(keras.layers.Dropout(hp.Float(f"dropout_{layer}", 0.0, 0.5, step=0.1)))
        model.add(keras.layers.Dense(1) if regression else keras.layers.Dense(len(classes), activation="softmax"))
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        loss = "mse" if regression else "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.Adam(rate), loss=loss)
        return model

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.BayesianOptimization(
            build, objective="val_loss", max_trials=10_000, directory=folder, seed=request["seed"]
        )
        clock = SearchClock(request["seconds"])
        clock.limit(tuner.oracle)
        order = np.random.default_rng(request["seed"]).permutation(len(columns))
        tuner.search(
            columns[order],
            wanted[order],
            validation_split=0.2,
            epochs=100,
            batch_size=128,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=10), clock.callback()],
            verbose=0,
        )
        values = tuner.get_best_models(1)[0].predict(encoder.transform(test).astype(np.float32), verbose=0)
    return (values[:, 0] * scale + center, []) if regression else (values, classes)


SYSTEMS: Mapping[str, Callable[[Mapping[str, Any]], Answers]] = {
    "HistGradientBoosting": hist_gradient_boosting,
    "FLAML": flaml,
    "AutoGluon": autogluon,
    "AutoGluon network": autogluon_network,
    "AutoKeras": autokeras,
    "KerasTuner": kerastuner,
}


def main(system: str, request_file: str) -> None:
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    values, classes = SYSTEMS[system](request)
    np.savez(request["answers"], values=np.asarray(values, np.float64), classes=np.asarray(classes, dtype=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
