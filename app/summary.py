"""Tables and texts that the command line prints, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.data_stage import PreparedData
from app.evaluation.leaderboard import leaderboard_table
from app.evaluation.metrics import Metric, Objective
from app.evaluation.number_text import number_text
from app.evaluation.report import NextCommand
from app.evaluation.sealed_test import SealedTestReport
from app.run_directory import RunDirectory
from app.search.space import Space
from app.search_record import Search
from app.view import duration
from pipelines.data_report import Severity
from pipelines.splits import Split

MAX_COLUMNS_SHOWN = 30

SEVERITY_STYLE = {Severity.WARNING: "yellow", Severity.INFO: "dim"}


def data_found(data: PreparedData) -> RenderableType:
    """Returns what was found in the data: columns with reasons, target, splits, findings."""
    target = data.schema.target
    classes = f", classes {', '.join(target.classes[:8])}{' …' if len(target.classes) > 8 else ''}"
    counted = ", ".join(f"{int((data.splits == split).sum()):,} {split.name.lower()}" for split in Split)
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("column", overflow="fold", max_width=32)
    table.add_column("taken as", no_wrap=True)
    table.add_column("because", overflow="fold", style="dim")
    features = data.schema.features
    for feature in features[:MAX_COLUMNS_SHOWN]:
        kind = feature.kind.value if feature.used else "(dropped)"
        table.add_row(Text(feature.name), Text(kind), Text(feature.reason))
    hidden = len(features) - MAX_COLUMNS_SHOWN
    lines: list[RenderableType] = [
        Text(data.source.description, style="bold"),
        Text(f"target {target.name}: {target.task.value} ({target.reason}){classes if target.classes else ''}"),
        Text(f"rows   {counted} (sealed until the end)"),
        Text(""),
        table,
    ]
    if hidden > 0:
        lines.append(Text(f"… and {hidden} more columns, see schema.json", style="dim"))
    findings = data.profile.findings
    if findings:
        lines.append(Text(""))
    lines += [
        Text.assemble((f"{finding.severity.value:8}", SEVERITY_STYLE[finding.severity]), finding.message)
        for finding in findings
    ]
    return Group(*lines, Text(""))


def search_begins(
    search: Search, space: Space, *, objective: Objective, devices: str, space_name: str
) -> RenderableType:
    """Returns what is searched, how, and why."""
    metric = objective.metric
    rows = [
        ("space", f"{space_name}: {len(space.parameters)} hyperparameters"),
        ("search", f"{search.algorithm}: {search.reason}"),
        ("objective", f"validation {metric.name}, {metric.direction.value} ({objective.reason})"),
        ("training", f"up to {search.max_epochs} epochs a trial on {devices}; seed {search.seed}"),
    ]
    return Group(*(Text.assemble((f"{name:10}", "bold"), text) for name, text in rows), Text(""))


def search_ended(reason: str, *, board: pd.DataFrame, metric: Metric) -> RenderableType:
    """Returns the leaderboard."""
    counts = board["status"].value_counts()
    counted = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Group(
        Text(f"Search ended: {reason}. {len(board)} trials: {counted}."),
        leaderboard_table(board, metric=metric),
    )


def test_result(tested: SealedTestReport) -> RenderableType:
    """Returns the sealed test's table: the model with intervals beside the baselines."""
    table = Table(title=f"Sealed test, opened once ({tested.num_rows:,} rows)", title_justify="left")
    table.add_column("metric")
    table.add_column("model", justify="right")
    table.add_column("95 % interval", justify="right", style="dim")
    for name in tested.baselines:
        table.add_column(name, justify="right")
    for estimate in tested.model:
        low, high = estimate.low, estimate.high
        others = [tested.estimate(estimate.name, baseline=name) for name in tested.baselines]
        table.add_row(
            Text(estimate.name, style="bold" if estimate.name == tested.objective else ""),
            number_text(estimate.value),
            "" if low is None or high is None else f"{number_text(low)} to {number_text(high)}",
            *("" if other is None else number_text(other.value) for other in others),
        )
    notes = [Text(sentence) for sentence in (*tested.verdicts(), *tested.notes)]
    return Group(Text(""), table, *notes)


def what_next(
    directory: RunDirectory, commands: Sequence[NextCommand], *, stages: Mapping[str, Any], seconds: float
) -> RenderableType:
    """Returns the place of the export, its proof, and the commands to go on with."""
    exported = stages["export"]
    final = stages["final"]
    lines = [
        Text(""),
        Text.assemble(("SavedModel  ", "bold"), str(directory.path / exported["directory"])),
        Text(
            f"  verified in a fresh process: {exported['rows']:,} held-out and hostile rows, "
            f"largest difference {exported['max_difference']:.0e}",
            style="dim",
        ),
    ]
    if final["epochs"] < final["wanted_epochs"]:
        lines.append(
            Text(
                f"  the final training was cut at epoch {final['epochs']} of {final['wanted_epochs']}: "
                f"the time was used up",
                style="yellow",
            )
        )
    lines += [
        Text.assemble(("report      ", "bold"), str(directory.report_file)),
        Text.assemble(("took        ", "bold"), duration(seconds)),
        Text(""),
        Text("Next", style="bold"),
    ]
    for command in commands:
        lines += [Text(f"  # {command.purpose}", style="dim"), Text(f"  {command.command}")]
    return Group(*lines)
