"""`tamiz watch`: a search seen from another terminal, while it runs or afterwards, from its journal alone."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.config import ExperimentConfig
from app.evaluation.leaderboard import FittedLeaderboard
from app.evaluation.number_text import number_text, seconds_text
from app.overview import Overview, RungCount, best_text, importance_text, overview_of
from app.report_stage import board_of_progress
from app.run_directory import RunDirectory
from app.search.trial import Resource
from app.search_progress import Lease, Progress, read_progress
from app.shared_scores import agreement_told, agreement_warning

SECONDS_BETWEEN_LOOKS = 1.0
SHARE_OF_LOOKING = 0.2
"""Of the time: reading a journal of thousands of trials takes a second, and the search needs the core more."""

TRIALS_SHOWN = 8
CHART_WIDTH, CHART_HEIGHT = 60, 6
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def watch(directory: RunDirectory, *, console: Console, once: bool) -> None:
    """Shows a search until its experiment ends or Ctrl-C.

    Args:
        directory: The experiment.
        console: Where to show it.
        once: Show it as it is now and leave; so it is too where nothing can be redrawn.
    """
    config, progress = directory.read_config(), read_progress(directory)
    if once or not console.is_terminal or not directory.is_live:
        console.print(picture(progress, config=config, live=directory.is_live))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            start = time.monotonic()
            progress, alive = read_progress(directory), directory.is_live
            live.update(picture(progress, config=config, live=alive), refresh=True)
            if not alive:
                return
            took = time.monotonic() - start
            time.sleep(max(SECONDS_BETWEEN_LOOKS, took / SHARE_OF_LOOKING))


def picture(progress: Progress, *, config: ExperimentConfig, live: bool) -> RenderableType:
    """Returns everything there is to see of a search."""
    if progress.search is None:
        return Text("The search has not begun: the data is being read and the space declared.")
    overview = overview_of(progress)
    unit = "fold" if progress.history.resource is Resource.FOLDS else "epoch"
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("search", Text(f"{progress.search.algorithm} on {config.search.space}"))
    facts.add_row("stage", Text(_stage(progress, live=live)))
    facts.add_row("trials", Text(", ".join(f"{number:,} {status}" for status, number in overview.counts.items())))
    facts.add_row("best", Text(f"{overview.metric.name} {best_text(overview)}", style="green"))
    facts.add_row("time", Text(_time(progress, config=config)))
    if overview.importance:
        facts.add_row("importance", Text(importance_text(overview.importance)))
    if overview.agreement is not None:
        told = agreement_warning(overview.agreement) or agreement_told(overview.agreement)
        facts.add_row("one-shot", Text(told))
    if failed := progress.failed_packs:
        times = "once" if len(failed) == 1 else f"{len(failed)} times"
        told = f"failed as a whole {times}, their trials went on one by one; the last: {failed[-1]}"
        facts.add_row("packs", Text(told, style="yellow"))
    for number, lease in overview.leases.items() if live else ():
        trial = progress.history[number]
        told = f"{lease.worker}: trial {number}, {unit} {trial.epochs} of {trial.budget}, {_age(lease)}"
        facts.add_row("worker", Text(told))
    parts: list[RenderableType] = [facts]
    if overview.rungs:
        parts += [Text(""), _brackets(overview.rungs, unit=unit)]
    if sum(map(math.isfinite, overview.best)) > 1:
        parts += [Text(""), chart(overview)]
    board = board_of_progress(progress)
    parts += [Text(""), FittedLeaderboard(board=board, metric=overview.metric, max_rows=TRIALS_SHOWN)]
    return Panel(Group(*parts), title=config.name, title_align="left")


def chart(overview: Overview) -> RenderableType:
    """Returns the best value so far as a drawing of `CHART_HEIGHT` lines, the first trials to the left."""
    values = _sampled([value for value in overview.best if math.isfinite(value)], CHART_WIDTH)
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    # The lowest value keeps a visible foot: an empty column would look like no trial at all.
    heights = [1 + round((value - low) / span * (8 * CHART_HEIGHT - 1)) for value in values]
    labels = {0: number_text(high), CHART_HEIGHT - 1: number_text(low)}
    width = max(map(len, labels.values()))
    lines = []
    for line in range(CHART_HEIGHT):
        floor = 8 * (CHART_HEIGHT - 1 - line)
        bars = "".join(_EIGHTHS[min(max(height - floor, 0), 8)] for height in heights)
        lines.append(Text(f"{labels.get(line, ''):>{width}} {bars}", no_wrap=True))
    ended = f"{overview.metric.name}, best so far over {len(overview.best):,} trials"
    return Group(*lines, Text(" " * (width + 1) + ended, style="dim"))


def _stage(progress: Progress, *, live: bool) -> str:
    if "report" in progress.stages:
        return "finished: see report.html"
    after = [name for name in ("search", "final", "test", "export") if name in progress.stages]
    doing = {"search": "training the winner", "final": "testing", "test": "exporting", "export": "reporting"}
    now = doing[after[-1]] if after else "searching"
    return now if live else f"interrupted while {now}: go on with `tamiz resume`"


def _time(progress: Progress, *, config: ExperimentConfig) -> str:
    budget = config.search.seconds
    return seconds_text(progress.spent) + (f" of {seconds_text(budget)}" if budget else "")


def _age(lease: Lease) -> str:
    return f"since {seconds_text(max(0.0, time.time() - lease.since))}"


def _brackets(rungs: Sequence[RungCount], *, unit: str) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in ("bracket", "rung", f"until {unit}", "entered", "running", "promoted"):
        table.add_column(title, justify="right")
    for rung in rungs:
        cells = (rung.bracket, rung.rung, rung.budget or "-", rung.entered, rung.running, rung.promoted)
        table.add_row(*map(str, cells))
    return table


def _sampled(values: Sequence[float], most: int) -> list[float]:
    if len(values) <= most:
        return list(values)
    last = len(values) - 1
    return [values[round(place * last / (most - 1))] for place in range(most)]
