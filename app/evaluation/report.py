"""report.html: one static page with everything worth knowing about an experiment, without outside resources.

Names of columns, classes and files come from the user's data and may hold anything, so every text passes through
`escape`, and the page's own policy forbids scripts and outside resources in case one slips through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from app.evaluation.front_chart import FrontPicture, front_chart
from app.evaluation.intervals import MetricEstimate
from app.evaluation.leaderboard import cell_text
from app.evaluation.metrics import METRICS, Metric
from app.evaluation.number_text import number_text, seconds_text, trials_text
from app.evaluation.page import definitions, escape, items_list, render_page, section, table
from app.evaluation.progress_chart import progress_chart
from app.evaluation.sealed_test import SealedTestReport, rival_text
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
        epochs: epochs that its network learned for.
        parameters: number of weights.
    """

    trial: int
    hyperparameters: Configuration
    epochs: int
    parameters: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportEnsemble:
    """What is exported where trials were to answer together.

    Args:
        told: which do, and why, in words.
        weights: trial -> share, the most important first; empty where the winner answers alone.
        networks: networks in the exported graph.
        parameters: weights of all of them.
        temperature: of the probabilities; 1 where there is none.
    """

    told: str
    weights: Mapping[int, float]
    networks: int
    parameters: int
    temperature: float = 1.0


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
        fronts: the trials in each further objective; empty where there is one.
        ensemble: None where nothing was decided about one.
        others: names of the objectives beside the first.
        export: what was measured of the exported model, name -> value in words.
        final: how its training ended if that was before its time; "" otherwise.
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
    fronts: Sequence[FrontPicture] = ()
    ensemble: ReportEnsemble | None = None
    others: Sequence[str] = ()
    export: Mapping[str, str] = dataclasses.field(default_factory=dict)
    final: str = ""
    test: SealedTestReport | None = None
    commands: Sequence[NextCommand] = ()


def render_report(content: ReportContent) -> str:
    """The page as HTML text in UTF-8; readable in light and dark, on paper and on a telephone."""
    sections = [
        _header(content),
        "" if content.test is None else _test(content.test),
        _exported(content),
        "" if content.winner is None else _winner(content.winner),
        section("Search", _search(content)),
        section(f"Leaderboard ({trials_text(len(content.leaderboard))})", _leaderboard(content)),
        section("Findings in the data", _findings(content.findings)),
        section("Next", _commands(content.commands)) if content.commands else "",
    ]
    return render_page(content.name, "\n".join(filter(None, sections)))


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
        **({"Beside it": ", ".join(content.others)} if content.others else {}),
        "Time": seconds_text(content.seconds),
    }
    return f"<header><h1>{escape(content.name)}</h1>{definitions(facts)}</header>"


def _test(test: SealedTestReport) -> str:
    heads = ["metric", "model", *map(rival_text, test.baselines)]
    rows = []
    for estimate in test.model:
        others = [test.estimate(estimate.name, baseline=name) for name in test.baselines]
        arrow = "↑" if METRICS[estimate.name].direction == "maximize" else "↓"
        name = f"{escape(estimate.name)} {arrow}"
        first = f"<b>{name}</b>" if estimate.name == test.objective else name
        rows.append([first, *(_estimate(one) for one in (estimate, *others))])
    verdicts = items_list(escape(sentence) for sentence in test.verdicts())
    caption = (
        f"{test.num_rows:,} rows, opened once. In brackets 95 % intervals from {test.num_resamples:,} bootstrap "
        "resamples. Differences are the model minus the other, with the same rows drawn for both. "
        "Bold: the objective of the search. ↑ more is better, ↓ less is better."
    )
    body = verdicts + table(heads, rows) + f"<p class=note>{caption}</p>"
    body += "".join(f"<p class=note>{escape(note)}</p>" for note in test.notes)
    return section("Sealed test", body + _confusion(test))


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
    return section(f"Winner: trial {winner.trial}", definitions(facts, kind="short"))


def _exported(content: ReportContent) -> str:
    ensemble, facts, told, members = content.ensemble, dict(content.export), "", ""
    if ensemble is not None:
        facts = {
            "Networks": number_text(ensemble.networks),
            "Weights": number_text(ensemble.parameters),
            "Temperature": number_text(ensemble.temperature),
            **facts,
        }
        rows = [[escape(f"trial {trial}"), escape(f"{weight:.1%}")] for trial, weight in ensemble.weights.items()]
        told, members = f"<p>{escape(ensemble.told)}</p>", table(["member", "weight"], rows) if rows else ""
    if content.final:
        told += f"<p>{escape(content.final)}</p>"
    return section("Exported model", f"{told}{definitions(facts, kind='short')}{members}") if facts or told else ""


def _search(content: ReportContent) -> str:
    chart = progress_chart(content.progress, metric=content.objective)
    fronts = "".join(front_chart(picture, metric=content.objective) for picture in content.fronts)
    return f"<p>{escape(content.algorithm)}</p>{chart}{fronts}"


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
    return table([heads.get(name, str(name)) for name in names], rows) + rest + told


def _leaderboard_cell(name: str, value: object) -> str:
    if name == "reason":
        return f"<span class=reason>{escape(value)}</span>" if value else ""
    return escape(seconds_text(value) if name == "seconds" and isinstance(value, float) else cell_text(value))


def _findings(findings: Sequence[ReportFinding]) -> str:
    if not findings:
        return "<p>Nothing remarkable.</p>"
    ordered = sorted(findings, key=lambda finding: finding.severity == "info")
    return items_list(
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
