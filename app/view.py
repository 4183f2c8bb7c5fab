"""What a person sees of an experiment while it runs, in a terminal or nowhere."""

from __future__ import annotations

import abc
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from app.evaluation.number_text import number_text, seconds_text
from app.search.trial import Resource
from app.search_loop import SearchView

SECONDS_BETWEEN_LINES = 10.0
"""Where nothing can be redrawn (a pipe, a log), progress is a line now and then."""

SHARE_BETWEEN_LINES = 0.05
"""Of the time so far: a search of hours writes tens of lines, not thousands."""


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

        def show(state: SearchView) -> None:
            del state

        yield show


@final
class ConsoleView(View):
    """Shows everything in a terminal; live where it can be redrawn, line by line where not.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, message: str) -> None:
        """Shows one line; what rich takes for markup or for an emoji is text."""
        self._console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def show(self, content: RenderableType) -> None:
        """Shows a table or a panel."""
        # Not cropped: a path or command that is longer than the terminal is wide must stay whole to be copied.
        # In a group, as a bare text would be joined to a new one that forgets that it must not be wrapped.
        self._console.print(Group(content), crop=False)

    @contextlib.contextmanager
    def searching(self, *, seconds: float) -> Iterator[Callable[[SearchView], None]]:
        """Yields a function that redraws the panel, or prints a line every few seconds."""
        if not self._console.is_terminal:
            yield _line_printer(self)
            return
        with Live(console=self._console, refresh_per_second=5, transient=True) as live:
            yield lambda state: live.update(_panel(state, seconds))


def counts(state: SearchView) -> str:
    """Returns how many trials are in which state; those that wait or were given up only where there are any."""
    history = state.history
    of = f" of {state.max_trials}" if state.max_trials else ""
    parts = [f"{len(history.completed)}{of} done", f"{len(history.running)} running"]
    parts += [f"{len(history.paused)} paused"] if history.paused else []
    parts += [f"{len(history.pruned)} pruned"] if history.pruned else []
    return ", ".join([*parts, f"{len(history.failed)} failed"])


def _best(state: SearchView) -> str:
    return "none yet" if state.best is None else number_text(state.best)


def _panel(state: SearchView, seconds: float) -> Panel:
    lines: list[RenderableType] = [
        Text.assemble(("trials   ", "bold"), counts(state)),
        Text.assemble(("best     ", "bold"), (_best(state), "green")),
        Text.assemble(("now      ", "bold"), _latest(state)),
    ]
    if math.isfinite(seconds):
        spent = seconds - state.seconds_left
        left = f"{seconds_text(max(state.seconds_left, 0.0))} left of {seconds_text(seconds)}"
        lines.append(Text.assemble(("time     ", "bold"), left))
        lines.append(ProgressBar(total=seconds, completed=min(max(spent, 0.0), seconds)))
    elif state.max_trials:
        lines.append(ProgressBar(total=state.max_trials, completed=len(state.history) - len(state.history.running)))
    return Panel(Group(*lines), title="search", title_align="left", subtitle="Ctrl-C: finish with the best so far")


def _latest(state: SearchView) -> str:
    running = state.history.running
    if not running:
        return "-"
    trial = running[-1]
    unit = "fold" if state.history.resource is Resource.FOLDS else "epoch"
    return f"trial {trial.number}: {unit} {trial.epochs} of {trial.budget}"


def _line_printer(view: View) -> Callable[[SearchView], None]:
    last_best: float | None = None
    start = time.monotonic()
    next_time = start

    def show(state: SearchView) -> None:
        nonlocal last_best, next_time
        now = time.monotonic()
        if state.best == last_best and now < next_time:
            return
        last_best = state.best
        next_time = now + max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * (now - start))
        left = f"; {seconds_text(max(state.seconds_left, 0.0))} left" if math.isfinite(state.seconds_left) else ""
        view.say(f"  {counts(state)}; best {_best(state)}{left}")

    return show
