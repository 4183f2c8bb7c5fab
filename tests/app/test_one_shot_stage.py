"""The stage before a search that trains shared weights, with an executor that ranks cells by a known function."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.config import ExperimentConfig, SearchConfig
from app.errors import ConfigError, SearchError, WorkerLostError
from app.execution.messages import CellsRanked, EpochEnded, RankCells, Reply, Request, RunOpened
from app.one_shot_stage import RANK_SHARE, TRAIN_SHARE, check_one_shot, rank_cells, with_cells, with_fitting_share
from app.run_directory import RunDirectory
from app.search.algorithm import Algorithm, Recipe
from app.search.ranked_cell import RankedCell
from app.search.space import Categorical, Float, Space
from app.search_progress import Search, read_progress
from app.search_record import SearchRecord
from app.search_stage import check_settings
from app.shared_scores import ONE_SHOT, STAGE
from app.time_budget import TimeBudget
from app.view import ConsoleView

SPACE = Space(
    [
        Categorical("edge_0_1", tuple("abcdefgh")),
        Float("rate", 0.0, 1.0),
        Categorical("epoch_share", (0.125, 0.25, 0.5, 1.0), ordered=True),
    ]
)
RECIPE = {"rate": 0.25, "epoch_share": 0.5}
OPENED = RunOpened(space=SPACE, devices="CPU", num_replicas=1, memory=0, portfolio=(RECIPE,))
FOREVER = TimeBudget(end=math.inf, finishing=0.0)
SEARCH = Search(algorithm=ONE_SHOT, reason="as asked", objective="accuracy", max_epochs=8, seed=1, max_trials=9)


@dataclass
class RankingExecutor:
    """Ranks eight cells by their letter after two epochs a call; may lose its worker before it is done.

    Attributes:
        lost: Calls that a worker is lost over.
        cells: Cells that are ranked.
        asked: The requests.
    """

    lost: int = 0
    cells: int = 8
    asked: list[Request] = field(default_factory=list)

    def call(self, request: Request, *, on_epoch: Callable[[EpochEnded], None] | None = None) -> Reply:
        self.asked.append(request)
        first = 2 * len(self.asked) - 1
        for epoch in (first, first + 1):
            if on_epoch is not None:
                on_epoch(EpochEnded(trial=None, epoch=epoch, loss=1 / epoch, scalars={"train/loss": 1 / epoch},
                                    wall_time=time.time()))  # fmt: skip
        if len(self.asked) <= self.lost:
            raise WorkerLostError("RankCells: the worker was killed by SIGKILL")
        cells = tuple(
            RankedCell(edges={"edge_0_1": letter}, objective=0.9 - number / 10, loss=float(number), is_drawn=number > 3)
            for number, letter in enumerate("abcdefgh"[: self.cells])
        )
        return CellsRanked(cells=cells, epochs=first + 1, seconds=9.0, epoch_seconds=1.0, graph_seconds=2.0)


@dataclass
class Stage:
    """A search that is about to rank its cells."""

    directory: RunDirectory
    record: SearchRecord
    algorithm: Algorithm
    told: io.StringIO = field(default_factory=io.StringIO)

    def play(self, executor: RankingExecutor, *, budget: TimeBudget = FOREVER) -> None:
        view = ConsoleView(Console(file=self.told, width=400))
        rank_cells(
            executor, algorithm=self.algorithm, opened=OPENED, record=self.record, budget=budget, view=view
        )

    @property
    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.directory.journal_file.read_text().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.journal if record["event"] == event]


@pytest.fixture(name="stage")
def stage_fixture(tmp_path: Path) -> Iterator[Stage]:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    write_settings(directory, trials=9, seconds=0.0)
    record = SearchRecord(directory, started=time.time())
    record.begin(SEARCH, SPACE)
    yield Stage(directory, record, Algorithm(Recipe(name=ONE_SHOT, space=SPACE, seed=1, max_epochs=8, max_trials=9)))
    record.close()


def write_settings(directory: RunDirectory, **settings: Any) -> None:
    config = ExperimentConfig(search=SearchConfig(algorithm=ONE_SHOT, space="cell", **settings))
    directory.config_file.write_text(config.to_toml())


def config_of(**changes: str) -> ExperimentConfig:
    return ExperimentConfig(search=SearchConfig(**changes))  # type: ignore[arg-type]


def test_the_best_and_some_of_other_ranks_are_wanted_first(stage: Stage) -> None:
    executor = RankingExecutor()
    stage.play(executor)
    (request,) = executor.asked
    assert isinstance(request, RankCells)
    assert (request.train_until, request.rank_until) == (math.inf, math.inf)
    assert (request.epochs, request.hyperparameters) == (40, {**RECIPE, "edge_0_1": "a"})
    wanted = [trial.hyperparameters for trial in stage.algorithm.suggest(8)]
    assert sorted(cell["edge_0_1"] for cell in wanted) == list("abcdefgh")
    # The three best, and in turn with them three of those that were drawn; then the others.
    assert [cell["edge_0_1"] for cell in wanted[:6:2]] == ["a", "b", "c"]
    assert {cell["edge_0_1"] for cell in wanted[1:6:2]} < set("efgh")
    assert all((cell["rate"], cell["epoch_share"]) == (0.25, 0.5) for cell in wanted)
    assert [record["epoch"] for record in stage.of("supernet_epoch")] == [1, 2]
    assert stage.record.progress.stages[STAGE]["ranked"] == 8
    assert "8 cells ranked by weights shared for 2 epochs, accuracy up to 0.9; the best and 3" in stage.told.getvalue()


def test_what_was_ranked_is_not_ranked_again(stage: Stage) -> None:
    stage.play(RankingExecutor())
    again = RankingExecutor()
    stage.play(again)
    assert again.asked == []


def test_another_worker_goes_on_where_one_was_lost(stage: Stage) -> None:
    executor = RankingExecutor(lost=1)
    stage.play(executor)
    assert executor.asked[0] == executor.asked[1]
    assert stage.of("worker_replaced")[0]["reason"] == "RankCells: the worker was killed by SIGKILL"
    assert "was killed by SIGKILL; another goes on from what it had saved." in stage.told.getvalue()
    assert [record["epoch"] for record in stage.of("supernet_epoch")] == [1, 2, 3, 4]
    assert stage.record.progress.stages[STAGE]["epochs"] == 4


def test_two_lost_workers_end_the_search_which_can_be_resumed(stage: Stage) -> None:
    with pytest.raises(WorkerLostError, match="killed by SIGKILL"):
        stage.play(RankingExecutor(lost=2))
    assert STAGE not in read_progress(stage.directory).stages
    stage.play(RankingExecutor())
    assert STAGE in read_progress(stage.directory).stages


def test_without_a_cell_that_answers_the_search_ends(stage: Stage) -> None:
    with pytest.raises(SearchError, match="no cell could be ranked: the shared weights answer nothing, or nothing fin"):
        stage.play(RankingExecutor(cells=0))


def test_shared_weights_get_their_share_of_the_time_earlier_sessions_included(stage: Stage) -> None:
    write_settings(stage.directory, seconds=1000.0)
    now = time.time()
    executor = RankingExecutor()
    # Of 1,000 seconds, 300 have passed, and 100 are kept for what comes last.
    stage.play(executor, budget=TimeBudget(end=now + 700.0, finishing=100.0))
    (request,) = executor.asked
    assert isinstance(request, RankCells)
    assert request.train_until == pytest.approx(now - 300.0 + TRAIN_SHARE * 900.0, abs=1e-3)
    assert request.rank_until == pytest.approx(now - 300.0 + RANK_SHARE * 900.0, abs=1e-3)
    # Seven trainings of 2 + 8 seconds fit into the 600 that are left.
    assert stage.algorithm.suggest(1)[0].hyperparameters["epoch_share"] == 1.0


@pytest.mark.parametrize(
    ("left", "share"), [(math.inf, 0.5), (70.0, 1.0), (69.0, 0.5), (40.0, 0.25), (21.5, 0.125), (1.0, 0.125)]
)
def test_cells_are_trained_for_as_long_as_seven_of_them_can(left: float, share: float) -> None:
    found = with_fitting_share(RECIPE, space=SPACE, epoch_seconds=8.0, other_seconds=2.0, left=left)
    assert found == {**RECIPE, "epoch_share": share}


def test_a_space_without_shares_of_the_epochs_stays_as_it_is() -> None:
    space = Space([Float("rate", 0.0, 1.0)])
    found = with_fitting_share({"rate": 0.5}, space=space, epoch_seconds=8.0, other_seconds=2.0, left=1.0)
    assert found == {"rate": 0.5}


def test_another_space_has_no_shared_weights() -> None:
    message = (
        r"the algorithm 'one-shot' shares weights between the networks of --space cell, and the space is 'cnn': give "
        r"--space cell, or another algorithm, such as --algorithm bayesian"
    )
    with pytest.raises(ConfigError, match=message):
        check_settings(config_of(algorithm=ONE_SHOT, space="cnn"))


def test_where_no_space_is_named_it_is_that_of_cells() -> None:
    config = config_of(algorithm=ONE_SHOT)
    check_one_shot(config)
    assert with_cells(config).search.space == "cell"


def test_other_algorithms_keep_their_space() -> None:
    config = config_of(algorithm="evolution")
    assert with_cells(config) is config
