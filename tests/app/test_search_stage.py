from __future__ import annotations

import contextlib
import time
from typing import Any

from app.execution.messages import RunOpened
from app.search.algorithm import Algorithm
from app.search.space import Float, Int, Space
from app.search_record import SearchRecord
from app.search_stage import open_search
from app.view import SilentView

SPACE = Space([Int("depth", 1, 4), Float("rate", 0.0, 1.0)])
OPENED = RunOpened(space=SPACE, devices="CPU", num_replicas=1, alone="a test", portfolio=({"depth": 3}, {"depth": 2}))


def opened(run: Any) -> Algorithm:
    """The search as a session of its own opens it."""
    with contextlib.closing(SearchRecord(run.directory, started=time.time())) as record:
        return open_search(run.directory, run.config, opened=OPENED, record=record, view=SilentView())


def events(run: Any) -> list[str]:
    return [line.split('"')[3] for line in run.directory.journal_file.read_text().splitlines()]


def test_configurations_known_to_be_good_are_tried_first_and_written_down_once(small_run: Any) -> None:
    first = opened(small_run)
    assert [wish["depth"] for wish in first.recipe.wishes] == [3, 2]
    assert opened(small_run).recipe == first.recipe
    assert events(small_run).count("portfolio") == 1


def test_a_search_that_was_killed_before_it_wrote_them_down_has_them_all_the_same(small_run: Any) -> None:
    first = opened(small_run)
    journal = small_run.directory.journal_file
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[: events(small_run).index("portfolio")]))
    assert opened(small_run).recipe == first.recipe
