"""A pack that fails as a whole says why, and its members are trained one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import pytest

from app.execution.messages import EpochEnded, OpenRun, PackFailed, RunPack, RunTrial, TrialEnded
from app.search.space import Float, Space
from app.search.trial import Paused


def test_the_members_of_a_pack_that_fails_go_on_one_by_one(
    experiments: Any, placement: Any, network_values: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.execution.conversation import Conversation
    from app.execution.trial_runner import TrialRunner
    from app.training.packing.graph import PackGraph

    def trace(graph: PackGraph) -> None:
        raise MemoryError(f"no room for packs of {graph}")

    monkeypatch.setattr(PackGraph, "trace", trace)
    experiment = experiments("binary")
    request = OpenRun(directory=str(experiment.directory.path), objective="log_loss", max_epochs=3, seed=1)
    trials = tuple(
        RunTrial(
            number=number,
            hyperparameters=network_values(depth=1, residual=None),
            budget=1,
            space=Space([Float("x", 0.0, 1.0)]),
            deadline=math.inf,
        )
        for number in (70, 71)
    )
    ours, theirs = Pipe()
    with ours, theirs:
        runner = TrialRunner(
            request, experiment.directory, experiment.data, placement=placement, conversation=Conversation(theirs)
        )
        last = runner.run_pack(RunPack(trials=trials))
        said = []
        while ours.poll():
            said.append(ours.recv())
    kinds = (PackFailed, EpochEnded, TrialEnded)
    told = [message for message in said if isinstance(message, kinds)]
    assert told[0] == PackFailed(trials=(70, 71), size=2, reason="out of memory")
    assert [type(message) for message in told[1:]] == [EpochEnded, TrialEnded, EpochEnded]
    assert [(ended.trial, ended.outcome) for ended in (told[2], last)] == [(70, Paused(1)), (71, Paused(1))]
