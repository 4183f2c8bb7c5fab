"""Tables and texts that the command line prints, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.data_stage import KnownData
from app.evaluation.leaderboard import FittedLeaderboard
from app.evaluation.metrics import Metric
from app.evaluation.number_text import number_text, seconds_text, trials_text
from app.evaluation.report import NextCommand
from app.evaluation.sealed_test import SINGLE, SealedTestReport
from app.execution.messages import RunOpened
from app.fold_choice import FoldChoice
from app.goals import SearchGoals, measure_label, shown_limit, shown_measure
from app.overview import importance_text
from app.run_directory import RunDirectory
from app.search.limits import Limit
from app.search.space import Space
from app.search_progress import Search
from pipelines.data_report import Finding, Severity
from pipelines.schema import FeatureSpec
from pipelines.splits import Split

MAX_COLUMNS_SHOWN = 30
MAX_FINDINGS_SHOWN = 15
MAX_CLASSES_SHOWN = 8

SEVERITY_STYLE = {Severity.WARNING: "yellow", Severity.INFO: "dim"}

_GAP = 2  # blanks between columns


def data_found(data: KnownData) -> RenderableType:
    """Returns what was found in the data: columns with reasons, target, splits, findings, warnings first."""
    target = data.schema.target
    hidden = " …" if len(target.classes) > MAX_CLASSES_SHOWN else ""
    classes = f"; classes {', '.join(target.classes[:MAX_CLASSES_SHOWN])}{hidden}" if target.classes else ""
    counted = ", ".join(
        f"{rows:,} {split.name.lower()}" for split, rows in zip(Split, data.profile.split_rows, strict=True)
    )
    facts = [
        ("target", f"{target.name}: {target.task.value} ({target.reason}){classes}"),
        ("rows", f"{counted} (sealed until the end)"),
        *(("images", encoding.reason) for encoding in data.preprocessing.images),
    ]
    lines: list[RenderableType] = [Text(data.source.description, style="bold"), _labelled(facts), Text("")]
    return Group(*lines, *_columns(data.schema.features), *_findings(data.profile.findings), Text(""))


def search_begins(
    search: Search, space: Space, *, goals: SearchGoals, opened: RunOpened, space_name: str, folds: FoldChoice
) -> RenderableType:
    """Returns what is searched, how, and why."""
    metric = goals.objective.metric
    part = "fold" if search.folds > 1 else "trial"
    facts = [
        ("space", f"{space_name}: {len(space.parameters)} hyperparameters"),
        ("search", f"{search.algorithm}: {search.reason}"),
        ("objective", f"validation {metric.name}, {metric.direction.value} ({goals.objective.reason})"),
        ("training", f"up to {search.max_epochs} epochs a {part} on {opened.devices}; seed {search.seed}"),
        ("packing", f"each trial alone: {opened.alone}" if opened.alone else "trials of one shape train together"),
    ]
    if goals.limits:
        facts.insert(3, ("limits", "; ".join(map(shown_limit, goals.limits))))
    if goals.others:
        facts.insert(3, ("beside it", f"{', '.join(goals.others)}: the best compromises are marked as the front"))
    if folds.is_worth_saying:
        judged = f"{search.folds} folds of the training and validation rows" if search.folds > 1 else "validation rows"
        facts.insert(2, ("judged on", f"{judged}: {folds.reason}"))
    return Group(_labelled(facts), Text(""))


def search_ended(
    reason: str, *, board: pd.DataFrame, metric: Metric, importance: Mapping[str, float]
) -> RenderableType:
    """Returns the leaderboard, and which parameters made the difference."""
    counts = board["status"].value_counts()
    counted = ", ".join(f"{number:,} {status}" for status, number in counts.items())
    return Group(
        Text(f"Search ended: {reason}. {trials_text(len(board))}: {counted}."),
        Text(""),
        FittedLeaderboard(board=board, metric=metric),
        *([Text(""), Text(f"importance: {importance_text(importance)}", style="dim")] if importance else []),
    )


def ensemble_chosen(
    told: str, weights: Mapping[int, float], *, values: Mapping[int, float], metric: Metric
) -> RenderableType:
    """Returns what is exported and why, and the members with their weights."""
    if not weights:
        return Text(told)
    table = _table()
    for title in ("trial", "weight", metric.name):
        table.add_column(title, justify="right", no_wrap=True)
    for trial, weight in weights.items():
        table.add_row(str(trial), f"{weight:.0%}", number_text(values[trial]))
    return Group(Text(told), Padding(table, (0, 0, 0, 2)))


def test_result(tested: SealedTestReport) -> RenderableType:
    """Returns the sealed test's table: the model with intervals beside the baselines, and what to make of it."""
    table = _table()
    table.add_column("metric", no_wrap=True)
    table.add_column("model", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", style="dim", no_wrap=True)
    for name in tested.baselines:
        table.add_column(Text("best single" if name == SINGLE else name), justify="right", no_wrap=True)
    for estimate in tested.model:
        low, high = estimate.low, estimate.high
        others = [tested.estimate(estimate.name, baseline=name) for name in tested.baselines]
        table.add_row(
            Text(estimate.name, style="bold" if estimate.name == tested.objective else ""),
            number_text(estimate.value),
            "-" if low is None or high is None else f"{number_text(low)} to {number_text(high)}",
            *("-" if other is None else number_text(other.value) for other in others),
        )
    by_output: list[RenderableType] = [_by_output(tested), Text("")] if tested.outputs else []
    lines: list[RenderableType] = [
        Text(""),
        Text(f"Sealed test, opened once ({tested.num_rows:,} rows)", style="bold"),
        table,
        Text(""),
        *by_output,
    ]
    return Group(*lines, *map(Text, tested.verdicts()), *(Text(note, style="dim") for note in tested.notes))


def _by_output(tested: SealedTestReport) -> Table:
    """The metrics of each of several targets; those of the model are their means."""
    table = _table()
    table.add_column("target", overflow="fold", max_width=32)
    names = list(dict.fromkeys(name for values in tested.outputs.values() for name in values))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for output, values in tested.outputs.items():
        table.add_row(Text(output), *(number_text(values[name]) if name in values else "-" for name in names))
    return table


def what_next(
    directory: RunDirectory,
    commands: Sequence[NextCommand],
    *,
    stages: Mapping[str, Any],
    seconds: float,
    limits: Sequence[Limit] = (),
) -> RenderableType:
    """Returns the place of the export, its proof, and the commands to go on with."""
    exported = stages["export"]
    final = stages["final"]
    proof = (
        f"verified in a fresh process: {exported['rows']:,} held-out and hostile rows, "
        f"largest difference {exported['max_difference']:.0e}"
    )
    lines: list[RenderableType] = [
        Text(""),
        _uncut("SavedModel  ", str(directory.path / exported["directory"])),
        Padding(Text(proof, style="dim"), (0, 0, 0, 12)),
        *(Padding(line, (0, 0, 0, 12)) for line in _measured(exported.get("measures", {}), limits)),
    ]
    if cut := final_told(final):
        lines.append(Padding(Text(cut, style="yellow"), (0, 0, 0, 12)))
    lines += [
        _uncut("report      ", str(directory.report_file)),
        _uncut("took        ", seconds_text(seconds)),
        Text(""),
        Text("Next", style="bold"),
    ]
    for command in commands:
        lines += [Text(f"  # {command.purpose}", style="dim"), _uncut("  ", command.command)]
    return Group(*lines)


def final_told(final: Mapping[str, Any]) -> str:
    """Returns how a final training ended that did not go to its last epoch; nothing of one that did.

    Args:
        final: What the journal says of it.
    """
    if final["epochs"] >= final["wanted_epochs"]:
        return ""
    cut = f"the final training was cut at epoch {final['epochs']} of {final['wanted_epochs']}: the time was used up"
    if not final["epochs"]:
        cut = "the winner was not trained again, which would have taken too long"
    if final.get("of_trial"):
        cut += "; the network is the one that the trial came to, which has not learned from the validation rows"
    return cut


def _measured(measures: Mapping[str, float], limits: Sequence[Limit]) -> Iterable[Text]:
    """What was measured of the exported model, and each limit that it breaks."""
    if measures:
        told = (f"{measure_label(name)} {shown_measure(name, value)}" for name, value in measures.items())
        yield Text(", ".join(told), style="dim")
    for limit in limits:
        if limit.measure in measures and not limit.holds(measures[limit.measure]):
            yield Text(f"the exported model breaks the limit {shown_limit(limit)}", style="yellow")


def _table() -> Table:
    return Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")


def _labelled(facts: Iterable[tuple[str, str]]) -> Table:
    """A label and a text a line; what does not fit goes on under the text."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(label, Text(text))
    return table


def _columns(features: Sequence[FeatureSpec]) -> Iterable[RenderableType]:
    table = _table()
    table.add_column("column", overflow="fold", max_width=32)
    table.add_column("taken as", no_wrap=True)
    table.add_column("because", overflow="fold", style="dim")
    for feature in features[:MAX_COLUMNS_SHOWN]:
        kind = feature.kind.value if feature.used else "(dropped)"
        table.add_row(Text(feature.name), Text(kind), Text(feature.reason))
    yield table
    hidden = len(features) - MAX_COLUMNS_SHOWN
    if hidden > 0:
        yield Text(f"and {hidden:,} more columns, see schema.json", style="dim")


def _findings(findings: Sequence[Finding]) -> Iterable[RenderableType]:
    if not findings:
        return
    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    ordered = sorted(findings, key=lambda finding: finding.severity is not Severity.WARNING)
    for finding in ordered[:MAX_FINDINGS_SHOWN]:
        severity = Text(finding.severity.value, style=SEVERITY_STYLE[finding.severity])
        table.add_row(severity, Text(finding.message))
    yield Text("")
    yield table
    hidden = len(findings) - MAX_FINDINGS_SHOWN
    if hidden > 0:
        yield Text(f"and {hidden:,} more findings, see profile.json", style="dim")


def _uncut(label: str, text: str) -> Text:
    """A line that stays one line however narrow the terminal is, so that it can be copied."""
    return Text.assemble((label, "bold"), text, no_wrap=True, overflow="ignore")
