"""What a person sees of an experiment while it runs, in a terminal or nowhere."""

from __future__ import annotations

import abc
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.search_loop import SearchView

SECONDS_BETWEEN_LINES = 10.0
"""Where nothing can be redrawn (a pipe, a log), progress is a line now and then."""


class View(abc.ABC):
    """Receives what happens, in the order in which it happens."""

    @abc.abstractmethod
    def say(self, message: str) -> None:
        """Shows one line."""

    @abc.abstractmethod
    def show(self, content: RenderableType) -> None:
        """Shows a table or a panel."""

    @abc.abstractmethod
    def searching(self, *, seconds: float) -> contextlib.AbstractContextManager[Callable[[SearchView], None]]:
        """Returns a block in which the search is shown; `seconds` is the whole budget, infinity without one."""


@final
class SilentView(View):
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Shows nothing."""

    def show(self, content: RenderableType) -> None:
        """Shows nothing."""

    @contextlib.contextmanager
    def searching(self, *, seconds: float) -> Iterator[Callable[[SearchView], None]]:
        """Yields a function that shows nothing."""
        del seconds
        yield lambda state: None


@final
class ConsoleView(View):
    """Shows everything in a terminal; live where it can be redrawn, line by line where not.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, message: str) -> None:
        """Shows one line; square brackets in it are text."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def show(self, content: RenderableType) -> None:
        """Shows a table or a panel."""
        self._console.print(content)

    @contextlib.contextmanager
    def searching(self, *, seconds: float) -> Iterator[Callable[[SearchView], None]]:
        """Yields a function that redraws the panel, or prints a line every few seconds."""
        if not self._console.is_terminal:
            yield _line_printer(self)
            return
        with Live(console=self._console, refresh_per_second=5, transient=True) as live:
            yield lambda state: live.update(_panel(state, seconds))


def data_table(rows: Sequence[tuple[str, str, str]], *, limit: int = 40) -> Table:
    """Returns the table of columns: name, what it is taken for, and why."""
    table = Table(title=None, box=None, padding=(0, 2), pad_edge=False)
    table.add_column("column", overflow="fold", max_width=30)
    table.add_column("taken as", no_wrap=True)
    table.add_column("why", style="dim", overflow="fold")
    for name, kind, reason in rows[:limit]:
        table.add_row(Text(name), Text(kind), Text(reason))
    if len(rows) > limit:
        table.add_row(f"… {len(rows) - limit} more", "", "see schema.json")
    return table


def duration(seconds: float) -> str:
    """Returns seconds as people write them: ``4.2 s``, ``1 min 05 s``, ``2 h 03 min``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counts(state: SearchView) -> str:
    """Returns how many trials are in which state."""
    history = state.history
    of = f" of {state.max_trials}" if state.max_trials else ""
    parts = [f"{len(history.completed)}{of} done", f"{len(history.running)} running"]
    parts += [f"{len(history.paused)} paused"] if history.paused else []
    return ", ".join([*parts, f"{len(history.pruned)} pruned", f"{len(history.failed)} failed"])


def _best(state: SearchView) -> str:
    return "none yet" if state.best is None else f"{state.best:.5g}"


def _panel(state: SearchView, seconds: float) -> Panel:
    lines: list[RenderableType] = [
        Text.assemble(("trials   ", "bold"), counts(state)),
        Text.assemble(("best     ", "bold"), (_best(state), "green"), f"   {_latest(state)}"),
    ]
    if math.isfinite(seconds):
        spent = seconds - state.seconds_left
        lines.append(Text.assemble(("time     ", "bold"), f"{duration(state.seconds_left)} left of {duration(seconds)}"))
        lines.append(ProgressBar(total=seconds, completed=min(max(spent, 0.0), seconds)))
    elif state.max_trials:
        lines.append(ProgressBar(total=state.max_trials, completed=len(state.history) - len(state.history.running)))
    return Panel(Group(*lines), title="search", title_align="left", subtitle="Ctrl-C: finish with the best so far")


def _latest(state: SearchView) -> str:
    running = state.history.running
    if not running:
        return ""
    trial = running[-1]
    return f"trial {trial.number}: epoch {trial.epochs} of {trial.budget}"


def _line_printer(view: View) -> Callable[[SearchView], None]:
    last_best: float | None = None
    last_time = 0.0

    def show(state: SearchView) -> None:
        nonlocal last_best, last_time
        now = time.monotonic()
        if state.best == last_best and now - last_time < SECONDS_BETWEEN_LINES:
            return
        last_best, last_time = state.best, now
        left = f"; {duration(state.seconds_left)} left" if math.isfinite(state.seconds_left) else ""
        view.say(f"  {counts(state)}; best {_best(state)}{left}")

    return show
