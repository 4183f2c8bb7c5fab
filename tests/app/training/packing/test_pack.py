from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.search.space import Float, Space

KNOWN = Space([Float("x", 0.0, 1.0)])


class Diary:
    """What a pack told."""

    def __init__(self) -> None:
        self.curves: dict[int, list[float]] = {}
        self.ends: dict[int, Any] = {}
        self.order: list[int] = []

    def report(self, number: int, result: Any) -> None:
        assert result.epoch == len(self.curves.setdefault(number, [])) + 1
        self.curves[number].append(result.scalars["val/loss"])

    def ended(self, member: Any) -> None:
        assert member.number not in self.ends
        self.ends[member.number] = member
        self.order.append(member.number)


@pytest.fixture(scope="module")
def packs(make_trainer: Callable[..., Any]) -> Any:
    from app.training.packing.pack import PackTrainer

    return PackTrainer(make_trainer("multiclass"), seed=3)


@pytest.fixture(scope="module")
def train(packs: Any, network_values: Callable[..., dict[str, Any]]) -> Callable[..., Diary]:
    """Trains a pack of networks that differ from the usual one as told."""
    from app.training.packing.live import PackMember

    def trained(
        folder: Path, changes: dict[int, dict[str, Any]], *, budget: int = 3, ask: Callable[[], Any] = set
    ) -> Diary:
        diary = Diary()
        members = [
            PackMember(
                number=number,
                values=network_values(**change),
                known=KNOWN,
                budget=budget,
                seed=number,
                state=folder / str(number),
            )
            for number, change in changes.items()
        ]
        packs.train(members, report=diary.report, ended=diary.ended, ask=ask)
        return diary

    return trained


SOUND: dict[int, dict[str, Any]] = {1: {"depth": 3}, 2: {"normalisation": "layer", "optimizer": "rmsprop"}}
DIVERGING: dict[str, Any] = {"optimizer": "sgd", "sgd_learning_rate": 1e38, "momentum": 0.9, "schedule": "constant"}


def test_a_member_that_diverges_fails_and_the_others_never_notice(train: Callable[..., Diary], tmp_path: Path) -> None:
    from app.training.epochs import NonFiniteError
    from app.training.trainer import End

    alone = train(tmp_path / "alone", SOUND)
    beside = train(tmp_path / "beside", SOUND | {7: DIVERGING})
    assert isinstance(beside.ends[7].error, NonFiniteError)
    assert "became" in str(beside.ends[7].error)
    assert beside.ends[7].end is None
    assert beside.order[0] == 7
    for number in SOUND:
        assert beside.ends[number].end is End.BUDGET
        assert beside.curves[number] == pytest.approx(alone.curves[number], rel=1e-4)
        assert len(beside.curves[number]) == 3


def test_a_pack_goes_on_from_its_saved_states_as_if_it_had_never_stopped(
    train: Callable[..., Diary], tmp_path: Path
) -> None:
    straight = train(tmp_path / "straight", SOUND, budget=4)
    train(tmp_path / "halves", SOUND, budget=2)
    resumed = train(tmp_path / "halves", SOUND, budget=4)
    for number in SOUND:
        assert resumed.curves[number] == pytest.approx(straight.curves[number], rel=1e-4)
        assert resumed.ends[number].epoch == 4


def test_a_member_that_is_behind_catches_up_with_the_rows_of_its_own_epochs(
    train: Callable[..., Diary], tmp_path: Path
) -> None:
    """As when a pack is killed while it saves one member after the other."""
    straight = train(tmp_path / "straight", SOUND, budget=3)
    train(tmp_path / "killed", SOUND, budget=1)
    train(tmp_path / "killed", {1: SOUND[1]}, budget=2)
    resumed = train(tmp_path / "killed", SOUND, budget=3)
    for number in SOUND:
        assert resumed.curves[number] == pytest.approx(straight.curves[number], rel=1e-4)


def test_a_member_is_stopped_while_another_catches_up(train: Callable[..., Diary], tmp_path: Path) -> None:
    from app.training.trainer import End

    train(tmp_path, {1: SOUND[1]}, budget=2)
    stopped = train(tmp_path, SOUND, budget=3, ask=lambda: {1})
    assert (stopped.ends[1].end, stopped.ends[1].epoch) == (End.STOPPED, 2)
    assert (stopped.ends[2].end, stopped.ends[2].epoch) == (End.BUDGET, 3)


def test_a_member_goes_on_in_a_pack_of_others_and_alone(
    train: Callable[..., Diary],
    make_trainer: Callable[..., Any],
    network_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    from app.training.epochs import Verdict
    from app.training.trainer import End

    first = train(tmp_path, SOUND, budget=1)
    other = train(tmp_path, {1: SOUND[1], 5: {"width": 64}}, budget=2)
    assert other.curves[1][:1] == first.curves[1]
    assert [len(curve) for curve in other.curves.values()] == [2, 2]
    told: list[Any] = []
    result = make_trainer("multiclass").train_trial(
        network_values(**SOUND[1]),
        known=KNOWN,
        budget=3,
        seed=1,
        state=tmp_path / "1",
        report=told.append,
        ask=lambda: Verdict.GO_ON,
    )
    assert [epoch.scalars["val/loss"] for epoch in told][:2] == other.curves[1]
    assert (result.end, result.epoch) == (End.BUDGET, 3)


def test_one_member_can_be_stopped_and_all_of_them(train: Callable[..., Diary], tmp_path: Path) -> None:
    from app.training.trainer import End

    stopped = train(tmp_path / "one", SOUND, ask=lambda: {1})
    assert (stopped.ends[1].end, stopped.ends[2].end) == (End.STOPPED, End.BUDGET)
    assert len(stopped.curves[1]) == stopped.ends[1].epoch == 1
    asked: list[None] = []

    def after_two_epochs() -> Any:
        asked.append(None)
        return set() if len(asked) <= 2 * calls_per_epoch else None

    counted: list[None] = []
    train(tmp_path / "count", SOUND, budget=1, ask=lambda: counted.append(None) or set())  # type: ignore[func-returns-value]
    calls_per_epoch = len(counted)
    every = train(tmp_path / "all", SOUND, budget=50, ask=after_two_epochs)
    assert {member.end for member in every.ends.values()} == {End.STOPPED}
    assert all(1 <= member.epoch == len(every.curves[number]) < 50 for number, member in every.ends.items())


def test_members_that_grow_no_better_leave_before_the_others(
    network_values: Callable[..., dict[str, Any]], tmp_path: Path, packs: Any
) -> None:
    from app.training.packing.live import PackMember
    from app.training.trainer import End

    hopeless = {"optimizer": "sgd", "sgd_learning_rate": 0.0, "momentum": 0.5, "schedule": "constant", "dropout": 0.0}
    hopeless |= {"normalisation": "layer"}  # no moving statistics that would go on changing
    diary, patience = Diary(), packs._trainer.patience
    packs._trainer.patience = 2
    try:
        members = [
            PackMember(
                number=number,
                values=network_values(**change),
                known=KNOWN,
                budget=6,
                seed=number,
                state=tmp_path / str(number),
            )
            for number, change in enumerate([hopeless, {"dropout": 0.0}])
        ]
        packs.train(members, report=diary.report, ended=diary.ended, ask=set)
    finally:
        packs._trainer.patience = patience
    assert (diary.ends[0].end, diary.ends[0].epoch) == (End.EARLY, 3)
    assert diary.ends[1].epoch > 3
    assert diary.order == [0, 1]


def test_a_state_of_another_network_fails_its_member_alone(train: Callable[..., Diary], tmp_path: Path) -> None:
    from app.training.checkpoint import CheckpointError
    from app.training.trainer import End

    train(tmp_path, SOUND, budget=1)
    diary = train(tmp_path, {1: {"depth": 2}, 2: SOUND[2]}, budget=2)
    assert isinstance(diary.ends[1].error, CheckpointError)
    assert "belongs to another network" in str(diary.ends[1].error)
    assert diary.ends[2].end is End.BUDGET


def test_the_time_of_a_pack_is_shared_among_its_members(train: Callable[..., Diary], tmp_path: Path) -> None:
    diary = train(tmp_path, SOUND, budget=2)
    for member in diary.ends.values():
        assert 0.0 < member.seconds < member.alone_seconds
