from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import Balance, DataConfig, ExperimentConfig, SearchConfig
from app.data_files import write_data
from app.data_source import read_source
from app.data_stage import prepare_data
from app.evaluation.metrics import METRICS
from app.run_directory import RunDirectory
from app.training.declaration import declare
from app.training.epochs import EpochResult, NonFiniteError, Verdict
from app.training.fold_data import load_folds
from app.training.fold_packs import FoldPackTrainer
from app.training.fold_trainer import FoldTrainer
from app.training.network import TrainingPart
from app.training.packing.live import PackMember
from app.training.packing.pack import MemberEnded
from app.training.trainer import End, Trainer, TrainingResult
from app.training.trial_data import TrialData, load_trial_data, tensors
from pipelines.splits import Split
from search_spaces.layers.quantile_normal import QuantileNormal

EPOCHS, FOLDS = 4, 3
NETWORK_CHANGES = {"depth": 1, "residual": None, "width": 8, "batch_size": 32}


@dataclass(frozen=True)
class Opened:
    prepared: Any
    trainer: Trainer
    parts: tuple[TrialData, ...]


@dataclass(frozen=True)
class Trained:
    result: TrainingResult
    epochs: list[EpochResult]
    folds: list[EpochResult]


def go_on() -> Verdict:
    return Verdict.GO_ON


@pytest.fixture(scope="module")
def open_folds(placement: Any, make_frame: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Opened]:
    """An experiment whose rows are dealt to folds, opened as a worker opens it."""
    made: dict[Any, Opened] = {}

    def opened(task: str = "binary", *, time_column: str = "") -> Opened:
        key = (task, time_column)
        if key not in made:
            frame = make_frame(task)
            frame["row"] = np.arange(len(frame))
            # Only some rows miss it, so that a fold may have none among those it trains on.
            frame.loc[frame.index[5:], "size"] = frame["size"].fillna(50.0)[5:]
            frame.loc[frame.index[:1], "size"] = np.nan
            config = ExperimentConfig(
                data=DataConfig(target="outcome", task=task, time_column=time_column),
                search=SearchConfig(folds=FOLDS),
            )
            directory = RunDirectory(tmp_path_factory.mktemp("folds"))
            prepared = prepare_data(read_source(frame, config), config)
            write_data(prepared, config, directory=directory)
            data = load_trial_data(directory, balance=Balance.AUTO)
            trainer = Trainer(
                data,
                space_name="mlp",
                objective=METRICS["rmse" if task == "regression" else "log_loss"],
                placement=placement,
                max_epochs=EPOCHS,
                patience=100,
            )
            made[key] = Opened(prepared, trainer, load_folds(directory, data))
        return made[key]

    return opened


def train(
    opened: Opened,
    values: dict[str, Any],
    *,
    state: Path,
    budget: int = FOLDS,
    ask: Callable[[], Verdict] = go_on,
    report: Callable[[EpochResult], None] | None = None,
    leave_above: tuple[float, ...] = (),
    parts: tuple[TrialData, ...] | None = None,
) -> Trained:
    told: list[EpochResult] = []

    def listen(result: EpochResult) -> None:
        told.append(result)
        if report is not None:
            report(result)

    result = FoldTrainer(opened.trainer, opened.parts if parts is None else parts).train_trial(
        values,
        known=declare(opened.trainer.space()),
        budget=budget,
        seed=7,
        state=state,
        report=listen,
        ask=ask,
        leave_above=leave_above,
    )
    return Trained(result, [r for r in told if r.fold], [r for r in told if not r.fold])


@pytest.fixture(scope="module")
def whole(
    open_folds: Callable[..., Opened], network_values: Callable[..., dict[str, Any]], tmp_path_factory: Any
) -> Trained:
    """A trial on all folds in one go."""
    return train(open_folds(), network_values(**NETWORK_CHANGES), state=tmp_path_factory.mktemp("whole"))


def test_every_fold_is_encoded_by_what_its_own_training_rows_taught(open_folds: Any) -> None:
    opened = open_folds("regression")
    ages = [float(part.training.numeric[:, 1].mean()) for part in opened.parts]
    # Standardised on the training rows of the fold: there, and only there, the mean is 0.
    np.testing.assert_allclose(ages, 0.0, atol=1e-5)
    assert all(abs(part.validation.numeric[:, 1].mean()) > 1e-3 for part in opened.parts)
    for part in opened.parts:
        assert part.target_mean == pytest.approx(part.training.y.astype(float).mean())
    sizes = [part.training.num_rows + part.validation.num_rows for part in opened.parts]
    assert sizes == [int((opened.prepared.splits != Split.TEST).sum())] * FOLDS


def test_all_folds_have_the_shape_of_the_final_encoding(open_folds: Any) -> None:
    opened = open_folds("regression")
    names = opened.trainer.data.state.numeric_names
    assert "size: missing" in names
    missing = names.index("size: missing")
    flags = [part.training.numeric[:, missing].sum() for part in opened.parts]
    assert min(flags) == 0.0 < max(flags)
    for part in opened.parts:
        assert part.training.numeric.shape[1] == len(names)
        assert (part.training.categorical < opened.trainer.data.state.cardinalities).all()


def test_a_trial_reports_every_epoch_and_the_mean_of_the_folds_so_far(whole: Trained) -> None:
    assert (whole.result.end, whole.result.epoch) == (End.BUDGET, FOLDS)
    assert [(r.fold, r.epoch) for r in whole.epochs] == [(f + 1, e + 1) for f in range(FOLDS) for e in range(EPOCHS)]
    assert [r.epoch for r in whole.folds] == [1, 2, 3]
    best = [min(r.objective for r in whole.epochs if r.fold == fold) for fold in (1, 2, 3)]
    for number, told in enumerate(whole.folds, start=1):
        assert told.objective == pytest.approx(np.mean(best[:number]))
        assert told.scalars["fold/value"] == best[number - 1]
        curve = [r.objective for r in whole.epochs if r.fold == number]
        assert (told.scalars["fold/best_epoch"], told.scalars["fold/epochs"]) == (1 + np.argmin(curve), EPOCHS)


class KilledError(Exception):
    """Stands for a kill: nothing runs after it."""


def test_a_killed_trial_goes_on_inside_its_fold(
    whole: Trained, open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    def kill(result: EpochResult) -> None:
        if (result.fold, result.epoch) == (2, 3):
            raise KilledError

    values = network_values(**NETWORK_CHANGES)
    with pytest.raises(KilledError):
        train(open_folds(), values, state=tmp_path, report=kill)
    again = train(open_folds(), values, state=tmp_path)
    assert again.epochs == whole.epochs
    assert again.folds == whole.folds
    told_again = train(open_folds(), values, state=tmp_path)
    assert (told_again.folds, told_again.result.num_parameters) == (whole.folds, whole.result.num_parameters)


def test_a_paused_trial_goes_on_with_its_next_fold(
    whole: Trained, open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    values = network_values(**NETWORK_CHANGES)
    first = train(open_folds(), values, state=tmp_path, budget=1)
    assert (first.result.end, first.result.epoch, first.folds) == (End.BUDGET, 1, whole.folds[:1])
    assert train(open_folds(), values, state=tmp_path).epochs == whole.epochs


def test_a_fold_is_the_same_whichever_fold_the_graphs_were_made_for(
    open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    opened, values = open_folds("regression"), network_values(**NETWORK_CHANGES, label_smoothing=None)
    shared = train(opened, values, state=tmp_path / "shared", budget=2)
    # Windows of very different lengths share nothing: the first one is cut to force the second to a network of its own.
    short = opened.parts[0].training.take(np.arange(60))
    parts = (replace(opened.parts[0], training=short), *opened.parts[1:])
    alone = train(opened, values, state=tmp_path / "alone", budget=2, parts=parts)
    of_second = [[r.objective for r in trained.epochs if r.fold == 2] for trained in (shared, alone)]
    np.testing.assert_allclose(*of_second, rtol=1e-4)
    assert shared.epochs[0].objective != alone.epochs[0].objective


def test_windows_of_time_grow(open_folds: Any, network_values: Any, tmp_path: Path) -> None:
    opened = open_folds("binary", time_column="row")
    sizes = [part.training.num_rows for part in opened.parts]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]
    trained = train(opened, network_values(**NETWORK_CHANGES), state=tmp_path, budget=2)
    assert [r.epoch for r in trained.folds] == [1, 2]


def test_a_trial_leaves_when_its_mean_is_above_the_limit(
    whole: Trained, open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    limits = (whole.folds[0].objective + 1e-6, whole.folds[1].objective - 1e-6)
    trained = train(open_folds(), network_values(**NETWORK_CHANGES), state=tmp_path, leave_above=limits)
    assert (trained.result.end, trained.result.epoch) == (End.BEATEN, 2)
    assert trained.folds == whole.folds[:2]


@pytest.mark.parametrize(("fold", "epochs", "folds"), [(1, 2, 1), (2, 2, 1)])
def test_a_stop_inside_a_fold_keeps_what_is_whole_or_all_there_is(
    fold: int, epochs: int, folds: int, open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    told: list[EpochResult] = []

    def ask() -> Verdict:
        return Verdict.STOP if told and (told[-1].fold, told[-1].epoch) == (fold, epochs) else Verdict.GO_ON

    trained = train(
        open_folds(), network_values(**NETWORK_CHANGES), state=tmp_path, ask=ask, report=told.append
    )
    assert (trained.result.end, trained.result.epoch, len(trained.folds)) == (End.STOPPED, folds, folds)


def test_an_objective_that_a_fold_leaves_undefined_fails_the_trial(
    open_folds: Any, network_values: Any, tmp_path: Path
) -> None:
    opened = open_folds()
    one_class = opened.parts[0].validation.take(np.flatnonzero(opened.parts[0].validation.y == 0))
    parts = (replace(opened.parts[0], validation=one_class), *opened.parts[1:])
    trainer = Trainer(
        opened.trainer.data,
        space_name="mlp",
        objective=METRICS["roc_auc"],
        placement=opened.trainer.placement,
        max_epochs=1,
        patience=1,
    )
    with pytest.raises(NonFiniteError, match=r"not defined on the held-out rows of fold 1"):
        train(
            Opened(opened.prepared, trainer, parts), network_values(**NETWORK_CHANGES), state=tmp_path, parts=parts
        )


@dataclass(frozen=True)
class Packed:
    told: dict[int, list[EpochResult]]
    ended: dict[int, MemberEnded]


def train_pack(
    opened: Opened,
    configurations: list[dict[str, Any]],
    *,
    state: Path,
    limits: dict[int, tuple[float, ...]] | None = None,
    ask: Callable[[], Any] = frozenset,
    listen: Callable[[int, EpochResult], None] | None = None,
    packs: FoldPackTrainer | None = None,
) -> Packed:
    told: dict[int, list[EpochResult]] = {number: [] for number in range(len(configurations))}
    ended: dict[int, MemberEnded] = {}

    def report(number: int, result: EpochResult) -> None:
        told[number].append(result)
        if listen is not None:
            listen(number, result)

    def left(member: MemberEnded) -> None:
        ended[member.number] = member

    known = declare(opened.trainer.space())
    members = [
        PackMember(number=n, values=values, known=known, budget=FOLDS, seed=n, state=state / str(n))
        for n, values in enumerate(configurations)
    ]
    (packs or pack_trainer(opened)).train(members, limits=limits or {}, report=report, ended=left, ask=ask)
    return Packed(told, ended)


def pack_trainer(opened: Opened) -> FoldPackTrainer:
    trainer = opened.trainer
    trainers = [
        Trainer(
            part,
            space_name="mlp",
            objective=trainer.objective,
            placement=trainer.placement,
            max_epochs=EPOCHS,
            patience=100,
        )
        for part in opened.parts
    ]
    return FoldPackTrainer(trainers, seed=3)


@pytest.fixture(scope="module")
def packed(open_folds: Any, network_values: Any, tmp_path_factory: Any) -> tuple[FoldPackTrainer, Any, Packed]:
    """Three configurations trained on all folds together."""
    packs = pack_trainer(open_folds())
    values = [network_values(**NETWORK_CHANGES | {"learning_rate": rate}) for rate in (3e-3, 1e-2, 3e-2)]
    return packs, values, train_pack(open_folds(), values, state=tmp_path_factory.mktemp("packed"), packs=packs)


def test_a_pack_trains_all_folds_of_all_members(packed: Any) -> None:
    _, _, done = packed
    for number, told in done.told.items():
        assert [(r.fold, r.epoch) for r in told] == [
            step for fold in (1, 2, 3) for step in [*((fold, epoch) for epoch in range(1, EPOCHS + 1)), (0, fold)]
        ]
        best = [min(r.objective for r in told if r.fold == fold) for fold in (1, 2, 3)]
        assert told[-1].objective == pytest.approx(np.mean(best))
        assert (done.ended[number].end, done.ended[number].epoch) == (End.BUDGET, FOLDS)
        assert done.ended[number].num_parameters > 0


def test_a_pack_finds_what_a_trial_alone_finds(packed: Any, whole: Trained) -> None:
    """Another data order and other first weights: alike, not equal."""
    means = [told[-1].objective for told in packed[2].told.values()]
    assert min(abs(mean - whole.folds[-1].objective) for mean in means) < 0.3 * whole.folds[-1].objective


def test_a_killed_pack_goes_on_inside_its_fold(packed: Any, open_folds: Any, tmp_path: Path) -> None:
    packs, values, done = packed

    def kill(number: int, result: EpochResult) -> None:
        if (number, result.fold) == (1, 2):
            raise KilledError

    with pytest.raises(KilledError):
        train_pack(open_folds(), values, state=tmp_path, packs=packs, listen=kill)
    again = train_pack(open_folds(), values, state=tmp_path, packs=packs)
    for number, told in again.told.items():
        assert [(r.fold, r.epoch) for r in told] == [(r.fold, r.epoch) for r in done.told[number]]
        np.testing.assert_allclose(
            [r.objective for r in told], [r.objective for r in done.told[number]], rtol=1e-4, atol=1e-6
        )


def test_a_beaten_member_leaves_its_pack_and_the_others_go_on(packed: Any, open_folds: Any, tmp_path: Path) -> None:
    packs, values, done = packed
    first = next(r.objective for r in done.told[1] if not r.fold)
    again = train_pack(open_folds(), values, state=tmp_path, packs=packs, limits={1: (first / 2, 0.0)})
    assert (again.ended[1].end, again.ended[1].epoch) == (End.BEATEN, 1)
    assert [again.ended[number].epoch for number in (0, 2)] == [FOLDS, FOLDS]


def test_a_pack_that_is_stopped_in_a_later_fold_keeps_the_whole_ones(
    packed: Any, open_folds: Any, tmp_path: Path
) -> None:
    packs, values, _ = packed
    told: list[int] = []

    def listen(_: int, result: EpochResult) -> None:
        told.append(result.fold)

    stopped = train_pack(
        open_folds(), values, state=tmp_path, packs=packs, listen=listen, ask=lambda: None if 0 in told else frozenset()
    )
    assert [(ended.end, ended.epoch) for ended in stopped.ended.values()] == [(End.STOPPED, 1)] * 3


def test_every_fold_learns_its_quantiles_from_the_rows_that_it_trains_on(open_folds: Callable[..., Opened]) -> None:
    opened = open_folds()
    trainer = Trainer(
        opened.trainer.data,
        space_name="ft_transformer",
        objective=opened.trainer.objective,
        placement=opened.trainer.placement,
        max_epochs=EPOCHS,
        patience=100,
    )
    parts = [
        TrainingPart(data=part, rows=part.training, features=tensors(part.training.features)) for part in opened.parts
    ]
    values = {"width": 32, "num_blocks": 1, "batch_size": 32}
    network = trainer.network(values, parts[0], num_rows=parts[0].rows.num_rows, seed=1)
    layer = next(layer for layer in network.model.layers if isinstance(layer, QuantileNormal))
    start, found = network.state(), []
    for part in parts:
        network.start_again(part, weights=start, seed=1)
        alone = QuantileNormal()
        alone.adapt(part.rows.numeric)
        np.testing.assert_array_equal(np.asarray(layer.quantiles), np.asarray(alone.quantiles))
        found.append(np.asarray(layer.quantiles))
    assert (found[0] != found[1]).any()
