"""What `tamiz profile` and `tamiz validate` show: in the terminal, and as a static page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.data_contract import Profiled, Validation
from app.evaluation.number_text import number_text
from app.evaluation.page import escape, items_list, render_page, section, table
from pipelines.data_report import ColumnProfile, Severity
from pipelines.drift import ColumnDrift

MAX_VALUES_SHOWN = 5
MAX_ROWS_SHOWN = 40
_HEADS = ("column", "kind", "type", "missing", "distinct", "min", "mean", "max", "target", "distribution")


def profile_page(profiled: Profiled) -> str:
    """Returns the page of a profile: findings, and each column with its histogram or its most frequent values.

    Args:
        profiled: What was found.
    """
    findings = [
        f"<span class={finding.severity.value}>{escape(finding.message)}</span>"
        for finding in profiled.profile.findings
    ]
    sections = [
        f"<h1>{escape(profiled.description)}</h1>",
        section("Findings", items_list(findings)) if findings else "",
        section("Columns", table(_HEADS, [_row(column, profiled) for column in profiled.profile.columns])),
        section("Validation rows against training rows", _drift_table(profiled)) if profiled.drift else "",
    ]
    return render_page(profiled.description, "\n".join(filter(None, sections)))


def profile_found(profiled: Profiled) -> RenderableType:
    """Returns the columns and findings for the terminal."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in _HEADS[:-1]:
        shown.add_column(name, justify="left" if name in ("column", "kind", "type") else "right", no_wrap=True)
    for column in profiled.profile.columns[:MAX_ROWS_SHOWN]:
        known = profiled.associations.get(column.name)
        shown.add_row(*map(Text, _cells(column)), Text("-" if known is None else f"{known.value:.2f}"))
    hidden = len(profiled.profile.columns) - MAX_ROWS_SHOWN
    lines: list[RenderableType] = [Text(profiled.description, style="bold"), Text(""), shown]
    lines += [Text(f"... and {hidden:,} more columns", style="dim")] if hidden > 0 else []
    for finding in profiled.profile.findings:
        style = "yellow" if finding.severity is Severity.WARNING else "dim"
        lines.append(Text(f"{finding.severity.value}: {finding.message}", style=style))
    lines += [Text(f"warning: {_drift_text(drift)}", style="yellow") for drift in profiled.drift if drift.drifts]
    return Group(*lines)


def validation_found(validation: Validation) -> RenderableType:
    """Returns problems and drift for the terminal."""
    lines: list[RenderableType] = [Text(validation.description, style="bold")]
    lines += [
        Text(f"problem: column {problem.column!r} ({problem.rule}) {problem.message}", style="red")
        for problem in validation.problems
    ]
    lines += [Text(f"drift: {_drift_text(drift)}", style="red") for drift in validation.drifted]
    lines += [Text(f"note: {note}", style="dim") for note in validation.notes]
    if validation.is_good:
        compared = f"; {len(validation.drift):,} columns compared with the profile" if validation.drift else ""
        lines.append(Text(f"The data keeps the contract{compared}.", style="green"))
    return Group(*lines)


def _drift_text(drift: ColumnDrift) -> str:
    new = f", {drift.new_share:.1%} in new categories" if drift.new_share else ""
    return (
        f"column {drift.column!r} differs from the training rows (PSI {drift.psi:.3f}, distance {drift.distance:.3f}, "
        f"{drift.test} p {drift.p:.2g} corrected{new})"
    )


def _cells(column: ColumnProfile) -> list[str]:
    numbers = [("-" if value is None else number_text(value)) for value in (column.min, column.mean, column.max)]
    return [
        column.name,
        column.kind,
        column.type,
        f"{column.missing_share:.1%}",
        f"{column.num_distinct:,}",
        *numbers,
    ]


def _row(column: ColumnProfile, profiled: Profiled) -> list[str]:
    known = profiled.associations.get(column.name)
    told = "-" if known is None else f"{known.value:.2f} <span class=note>{escape(known.measure)}</span>"
    return [*map(escape, _cells(column)), told, _histogram(column) or _top_values(column)]


def _histogram(column: ColumnProfile) -> str:
    if not column.histogram_counts:
        return ""
    highest = max(column.histogram_counts)
    bars = "".join(
        f'<rect x="{6 * number}" y="{30 - round(30 * count / highest, 1)}" width="5" '
        f'height="{round(30 * count / highest, 1)}"><title>{escape(_bin(column, number))}: {count:,}</title></rect>'
        for number, count in enumerate(column.histogram_counts)
    )
    width = 6 * len(column.histogram_counts)
    return f'<svg width="{width}" height="30" fill="currentColor" role="img" aria-label="histogram">{bars}</svg>'


def _bin(column: ColumnProfile, number: int) -> str:
    low, high = column.histogram_edges[number : number + 2]
    return f"{number_text(low)} to {number_text(high)}"


def _top_values(column: ColumnProfile) -> str:
    shown = [f"{escape(value[:40])} ({count:,})" for value, count in column.top_values[:MAX_VALUES_SHOWN]]
    more = ", ..." if column.num_distinct > len(shown) else ""
    return f'<span class=reason>{", ".join(shown)}{more}</span>'


def _drift_table(profiled: Profiled) -> str:
    heads = ("column", "PSI", "distance", "test", "p, corrected", "")
    rows = [
        [
            escape(drift.column),
            f"{drift.psi:.3f}",
            f"{drift.distance:.3f}",
            escape(drift.test),
            f"{drift.p:.2g}",
            "<span class=warning>drifts</span>" if drift.drifts else "",
        ]
        for drift in profiled.drift
    ]
    return table(heads, rows)
