from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.search.space import Float, Space

KNOWN = Space([Float("x", 0.0, 1.0)])
PREDICTED = 1e-5
CHANGES: list[dict[str, Any]] = [
    {"optimizer": "adamw", "normalisation": "batch", "activation": "relu", "depth": 3, "residual": True},
    {"optimizer": "adamw", "normalisation": "none", "activation": "gelu", "depth": 1, "schedule": "constant"},
    {"optimizer": "rmsprop", "normalisation": "layer", "activation": "leaky_relu", "depth": 2, "width": 32},
    {"optimizer": "rmsprop", "normalisation": "batch", "activation": "gelu", "depth": 4, "embedding_size": 2},
    {
        "optimizer": "sgd",
        "sgd_learning_rate": 0.02,
        "momentum": 0.9,
        "normalisation": "layer",
        "activation": "gelu",
        "depth": 3,
        "residual": True,
        "width": 64,
        "warmup_share": 0.0,
    },
    {
        "optimizer": "sgd",
        "sgd_learning_rate": 0.05,
        "momentum": 0.8,
        "normalisation": "none",
        "activation": "relu",
        "depth": 2,
        "embedding_size": 8,
        "schedule": "constant",
    },
]


def solo(trainer: Any, values: dict[str, Any], seed: int) -> Any:
    from app.training.network import TrainingPart
    from app.training.trial_data import tensors

    rows = trainer.data.training
    part = TrainingPart(data=trainer.data, rows=rows, features=tensors(rows.features))
    return trainer.network(values, part, num_rows=rows.num_rows, seed=seed)


def saved(network: Any, folder: Path) -> Path:
    network.save(folder / "current", weights=network.weights(), curve=[])
    return folder


def packed(trainer: Any, trials: list[tuple[dict[str, Any], Path]]) -> Any:
    """A live pack of members in the states that Keras networks have saved."""
    from app.training.packing.live import LivePack, PackMember
    from app.training.packing.pack import PackTrainer

    packs = PackTrainer(trainer, seed=3)
    members = [
        packs.enter(
            PackMember(number=number, values=values, known=KNOWN, budget=5, seed=number, state=state)
        )
        for number, (values, state) in enumerate(trials)
    ]
    return LivePack(packs.graph, members, trainer.context(rows=trainer.data.training.num_rows))


@pytest.mark.parametrize(
    ("task", "rare", "weighted", "smoothing", "chosen"),
    [
        ("multiclass", False, False, 0.1, range(6)),
        ("binary", True, True, 0.05, [0, 4]),
        ("regression", False, True, 0.0, [2, 5]),
        ("quantiles", False, False, 0.0, [0, 4]),
        ("numbers", False, False, 0.0, [0, 5]),
        ("labels", False, True, 0.05, [2, 4]),
    ],
)
def test_every_member_trains_step_by_step_like_its_keras_network(
    make_trainer: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
    task: str,
    rare: bool,
    weighted: bool,
    smoothing: float,
    chosen: Sequence[int],
) -> None:
    import tensorflow as tf

    kind, levels = ("regression", (0.1, 0.5, 0.8, 0.9)) if task == "quantiles" else (task, ())
    trainer = make_trainer(kind, rare=rare, weighted=weighted, levels=levels)
    changes = [CHANGES[index] for index in chosen]
    label = {} if kind in ("regression", "numbers") else {"label_smoothing": smoothing}
    plain = {"residual": False, "dropout": 0.0, "label_smoothing": None} | label
    values = [network_values(**(plain | change)) for change in changes]
    networks = [solo(trainer, value, seed) for seed, value in enumerate(values)]
    states = [saved(network, tmp_path / str(number)) for number, network in enumerate(networks)]
    live = packed(trainer, list(zip(values, states, strict=True)))
    rows = trainer.data.training
    order = np.random.default_rng(5).permutation(rows.num_rows)[: 4 * 16].astype(np.int32).reshape(4, 16)
    losses = live.train(order, [1, 0]) / len(order)
    place = {member.trial.number: index for index, member in enumerate(live.members)}
    live.commit()
    live.fetch()

    features = {name: tf.constant(array) for name, array in rows.features.items() if array.shape[1]}
    target, weights = trainer.data.training_target(rows), trainer.data.row_weights(rows)
    for number, network in enumerate(networks):
        network.model.reset_metrics()

        @tf.function(autograph=False)
        def train(batch: Any, model: Any = network.model) -> Any:
            return model.train_step(batch)

        for batch in order:
            inputs = {name: tf.gather(tensor, batch) for name, tensor in features.items()}
            columns = (inputs, tf.constant(target[batch]))
            train(columns if weights is None else (*columns, tf.constant(weights[batch])))
        loss = next(metric.result() for metric in network.model.metrics if metric.name == "loss")
        assert losses[place[number]] == pytest.approx(float(loss), rel=1e-4)
        member = live.members[place[number]]
        for variable, array in zip(network.model.variables, live.variables(place[number]), strict=True):
            path = f"{number} {variable.path}"
            np.testing.assert_allclose(array, variable.numpy(), rtol=2e-3, atol=2e-5, err_msg=path)
        assert member.steps == len(order) == int(network.model.optimizer.iterations)


def test_a_member_taken_out_as_a_keras_model_answers_the_same(
    make_trainer: Callable[..., Any], network_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from app.training.packing.live import PackMember
    from app.training.packing.pack import PackTrainer
    from app.training.packing.plan import num_parameters

    trainer = make_trainer("multiclass", weighted=True)
    values = [
        network_values(width=32, depth=3, activation="gelu", dropout=0.3),
        network_values(normalisation="layer", depth=1, residual=None, embedding_size=8, optimizer="rmsprop"),
    ]
    packs, told = PackTrainer(trainer, seed=3), {}
    members = [
        PackMember(number=n, values=v, known=KNOWN, budget=2, seed=n, state=tmp_path / str(n))
        for n, v in enumerate(values)
    ]
    packs.train(members, report=lambda n, r: told.update({n: r}), ended=lambda _: None, ask=set)
    live = packed(trainer, [(value, tmp_path / str(number)) for number, value in enumerate(values)])
    from app.training.packing.graph import TableTensors
    from app.training.trial_data import tensors

    rows = trainer.data.validation
    features = tensors(rows.features)
    import tensorflow as tf

    target = tf.constant(trainer.data.training_target(rows))
    weights = tf.constant(trainer.data.given_weights(rows))
    answers, losses = live.evaluate(TableTensors(features=features, target=target, weights=weights))
    for index, member in enumerate(live.members):
        number = member.trial.number
        network = solo(trainer, values[number], seed=99)
        assert [result.epoch for result in network.restore(tmp_path / str(number) / "current")] == [1, 2]
        parts, loss = network.evaluate(features, rows)
        probabilities = np.concatenate([part["probabilities"] for part in parts])
        np.testing.assert_allclose(answers["probabilities"][index], probabilities, atol=PREDICTED)
        assert losses[index] == pytest.approx(loss, abs=PREDICTED)
        assert told[number].scalars["val/loss"] == pytest.approx(loss, abs=PREDICTED)
        assert told[number].scalars["learning_rate"] == pytest.approx(
            float(network.model.optimizer.learning_rate), rel=1e-5
        )
        assert num_parameters(member.plan, packs.context) == network.model.count_params()
        assert int(network.model.optimizer.iterations) == member.steps > 0
