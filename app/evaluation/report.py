"""report.html: one static page with everything worth knowing about an experiment, without outside resources.

Names of columns, classes and files come from the user's data and may hold anything, so every text passes through
`escape`, and the page's own policy forbids scripts and outside resources in case one slips through.
"""

from __future__ import annotations

import dataclasses
import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from app.evaluation.intervals import MetricEstimate
from app.evaluation.leaderboard import cell_text
from app.evaluation.metrics import METRICS, Metric
from app.evaluation.number_text import number_text, seconds_text
from app.evaluation.progress_chart import progress_chart
from app.evaluation.sealed_test import SealedTestReport
from app.search.space import Configuration

_MAX_LEADERBOARD_ROWS = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """The data as the head of the page tells it.

    Args:
        source: where the table came from.
        target: column predicted.
        task: of the target, in words.
        num_features: features used.
        num_rows: rows in all.
        num_train: rows trained on.
        num_validation: rows that selected.
        num_test: rows sealed until the end.
        folds: folds of the cross-validation that selected; 1 where validation rows did.
    """

    source: str
    target: str
    task: str
    num_features: int
    num_rows: int
    num_train: int
    num_validation: int
    num_test: int
    folds: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportFinding:
    """Something found in the data; `severity` is a word such as info or warning."""

    severity: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportWinner:
    """The trial that won.

    Args:
        trial: its number.
        hyperparameters: its configuration.
        epochs: epochs of its final training.
        parameters: number of weights.
    """

    trial: int
    hyperparameters: Configuration
    epochs: int
    parameters: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NextCommand:
    """A command to go on with, and what it does."""

    command: str
    purpose: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportContent:
    """All that the page shows.

    Args:
        name: of the experiment.
        data: the data.
        objective: metric the search followed.
        algorithm: how it searched, and why so.
        seconds: wall time of everything.
        leaderboard: made by `leaderboard.leaderboard`.
        progress: best validation value of each trial, in the order they ended; NaN for a failed one.
        importance: hyperparameter -> share of the differences between trials; empty where it is not known.
        findings: about the data.
        winner: None if no trial ended well.
        test: None if the test rows were not opened.
        commands: to go on with.
    """

    name: str
    data: DataSummary
    objective: Metric
    algorithm: str
    seconds: float
    leaderboard: pd.DataFrame
    progress: Sequence[float]
    findings: Sequence[ReportFinding] = ()
    importance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    winner: ReportWinner | None = None
    test: SealedTestReport | None = None
    commands: Sequence[NextCommand] = ()


def render_report(content: ReportContent) -> str:
    """The page as HTML text in UTF-8; readable in light and dark, on paper and on a telephone."""
    sections = [
        _header(content),
        "" if content.test is None else _test(content.test),
        "" if content.winner is None else _winner(content.winner),
        _section("Search", _search(content)),
        _section(f"Leaderboard ({len(content.leaderboard):,} trials)", _leaderboard(content)),
        _section("Findings in the data", _findings(content.findings)),
        _section("Next", _commands(content.commands)) if content.commands else "",
    ]
    return _PAGE.format(title=escape(content.name), style=_STYLE, body="\n".join(filter(None, sections)))


def escape(text: object) -> str:
    """Text for HTML bodies and attributes; control characters, which no page may hold, become a replacement."""
    visible = "".join(
        character if _is_visible(character) else "\N{REPLACEMENT CHARACTER}" for character in str(text)
    )
    return html.escape(visible, quote=True)


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def _header(content: ReportContent) -> str:
    data = content.data
    split, judged = f"{data.num_train:,} to train, {data.num_validation:,} to select", "on the validation rows"
    if data.folds > 1:
        split = f"{data.num_train + data.num_validation:,} to train and to select"
        judged = f"by cross-validation in {data.folds} folds"
    facts = {
        "Data": data.source,
        "Target": f"{data.target} ({data.task})",
        "Rows": f"{data.num_rows:,}: {split}, {data.num_test:,} sealed for the test",
        "Features": f"{data.num_features:,}",
        "Objective": f"{content.objective.name} {judged}, {content.objective.direction.value}d "
        f"({content.objective.description})",
        "Time": seconds_text(content.seconds),
    }
    return f"<header><h1>{escape(content.name)}</h1>{_definitions(facts)}</header>"


def _test(test: SealedTestReport) -> str:
    heads = ["metric", "model", *(f"{name} baseline" for name in test.baselines)]
    rows = []
    for estimate in test.model:
        others = [test.estimate(estimate.name, baseline=name) for name in test.baselines]
        arrow = "↑" if METRICS[estimate.name].direction == "maximize" else "↓"
        name = f"{escape(estimate.name)} {arrow}"
        first = f"<b>{name}</b>" if estimate.name == test.objective else name
        rows.append([first, *(_estimate(one) for one in (estimate, *others))])
    verdicts = _list(escape(sentence) for sentence in test.verdicts())
    caption = (
        f"{test.num_rows:,} rows, opened once. In brackets 95 % intervals from {test.num_resamples:,} bootstrap "
        "resamples. Differences are model minus baseline, with the same rows drawn for both. "
        "Bold: the objective of the search. ↑ more is better, ↓ less is better."
    )
    body = verdicts + _table(heads, rows) + f"<p class=note>{caption}</p>"
    body += "".join(f"<p class=note>{escape(note)}</p>" for note in test.notes)
    return _section("Sealed test", body + _confusion(test))


def _confusion(test: SealedTestReport) -> str:
    if test.confusion is None:
        return ""
    rows = []
    for label, counts in zip(test.classes, test.confusion, strict=True):
        # Shaded by the share of the true class: the eye sees recall, whatever the classes' sizes.
        total = max(1, sum(counts))
        cells = (
            f'<td style="--share:{round(100 * count / total)}%" class=shaded>{count:,}</td>'
            for count in counts
        )
        rows.append(f"<tr><th>{escape(label)}</th>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{escape(label)}</th>" for label in test.classes)
    return (
        "<h3>Confusion matrix</h3><p class=note>True classes in rows, predicted ones in columns.</p>"
        f"<div class=wide><table><tr><th></th>{heads}</tr>{''.join(rows)}</table></div>"
    )


def _winner(winner: ReportWinner) -> str:
    facts = {
        "Epochs": number_text(winner.epochs),
        "Weights": number_text(winner.parameters),
        **{name: cell_text(value) for name, value in winner.hyperparameters.items()},
    }
    return _section(f"Winner: trial {winner.trial}", _definitions(facts, kind="short"))


def _search(content: ReportContent) -> str:
    chart = progress_chart(content.progress, metric=content.objective)
    return f"<p>{escape(content.algorithm)}</p>{chart}"


def _leaderboard(content: ReportContent) -> str:
    board = content.leaderboard
    shown = board.head(_MAX_LEADERBOARD_ROWS)
    # The reason is long and mostly empty: at the end it pushes nothing out of sight.
    names = [name for name in board.columns if name != "reason"]
    names += ["reason"] if (shown["reason"] != "").any() else []
    heads = {"value": content.objective.name, "seconds": "time", "parameters": "weights"}
    rows = [[_leaderboard_cell(str(name), row[name]) for name in names] for row in shown.to_dict("records")]
    hidden = len(board) - len(shown)
    rest = f"<p class=note>and {hidden:,} more in the journal</p>" if hidden else ""
    shares = ", ".join(f"{escape(name)} {share:.0%}" for name, share in content.importance.items() if share >= 0.01)
    told = f"<p class=note>Importance (share of the differences between trials): {shares}</p>" if shares else ""
    return _table([heads.get(name, str(name)) for name in names], rows) + rest + told


def _leaderboard_cell(name: str, value: object) -> str:
    if name == "reason":
        return f"<span class=reason>{escape(value)}</span>" if value else ""
    return escape(seconds_text(value) if name == "seconds" and isinstance(value, float) else cell_text(value))


def _findings(findings: Sequence[ReportFinding]) -> str:
    if not findings:
        return "<p>Nothing remarkable.</p>"
    ordered = sorted(findings, key=lambda finding: finding.severity == "info")
    return _list(
        f"<b{'' if finding.severity == 'info' else ' class=warning'}>{escape(finding.severity)}</b> "
        f"{escape(finding.message)}"
        for finding in ordered
    )


def _commands(commands: Sequence[NextCommand]) -> str:
    return "".join(
        f"<p>{escape(one.purpose[:1].upper() + one.purpose[1:])}</p><pre><code>{escape(one.command)}</code></pre>"
        for one in commands
    )


def _estimate(estimate: MetricEstimate | None) -> str:
    if estimate is None:
        return "-"
    value = escape(number_text(estimate.value))
    if estimate.low is None or estimate.high is None:
        return value
    low, high = escape(number_text(estimate.low)), escape(number_text(estimate.high))
    return f"{value} <span class=note>[{low}, {high}]</span>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`heads` are plain text; `rows` are HTML already."""
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _definitions(facts: Mapping[str, str], *, kind: str = "long") -> str:
    """`kind` is long (one fact a line) or short (as many beside each other as fit)."""
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    return f"<dl class={kind}>{''.join(pairs)}</dl>"


def _list(items: Iterable[str]) -> str:
    body = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{body}</ul>" if body else ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="tamiz">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --back: #ffffff; --line: #d1d9e0;
  --panel: #f6f8fa; --accent: #0969da; --warning: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --back: #0d1117; --line: #3d444d;
  --panel: #151b23; --accent: #4493f8;
  --warning: #d29922; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 64rem;
  margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid var(--line); margin-top: 2.2rem; }
h3 { font-size: 1rem; }
.note { color: var(--soft); font-size: .875rem; }
.warning { color: var(--warning); }
/* A shadow on the right says that a table goes on there; at its end the first layer covers it. */
.wide { overflow-x: auto; overflow-wrap: normal; background:
  linear-gradient(to left, var(--back) 1.5rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); max-width: 24rem; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back);
  padding-left: 0; }
.reason { display: inline-block; min-width: 16rem; white-space: normal; overflow-wrap: anywhere; text-align: left; }
td.shaded { background: color-mix(in srgb, var(--accent) calc(var(--share) * .6), transparent); }
dl { display: grid; gap: .2rem 2rem; margin: 0; } dl div { display: flex; gap: 1rem; }
dl.short { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
dt { color: var(--soft); flex: 0 0 auto; min-width: 5.5rem; } dl.short dt { min-width: 9.5rem; } dd { margin: 0; }
pre { background: var(--panel); border: 1px solid var(--line); padding: .6rem .8rem; overflow-x: auto; }
svg { width: 100%; max-width: 46rem; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 13px; } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .best { stroke: var(--accent); stroke-width: 2; fill: none; } svg .trial { fill: var(--soft); opacity: .6; }
@media (max-width: 40rem) { body { padding: 1rem; } th, td { padding: .3rem .45rem; } ul { padding-left: 1.2rem; }
  td .note { display: block; font-size: .75rem; } svg text { font-size: 21px; } }
@media print { .wide { overflow: visible; background: none; } body { max-width: none; } }
"""
