from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from app.arguments import Changes, ExecutionArguments
from app.errors import RunDirectoryError
from app.experiment import resume
from app.view import ConsoleView


def test_more_workers_than_memory_allows_are_warned_of_when_a_search_is_resumed(small_run: Any) -> None:
    screen = io.StringIO()
    others = pd.DataFrame({"size": [1.0, 2.0], "outcome": ["high", "low"]})
    changes = Changes(execution=ExecutionArguments(workers=1000, worker_memory="1000GB"))
    # Other data ends it before a worker starts.
    with pytest.raises(RunDirectoryError, match="has changed since"):
        resume(
            small_run.directory.path,
            view=ConsoleView(Console(file=screen, width=400)),
            changes=changes,
            source=others,
        )
    assert "warning: 1000 workers of 1000GB do not fit into the " in screen.getvalue()
