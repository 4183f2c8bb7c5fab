from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from app import summary
from app.evaluation.leaderboard import TrialRow, leaderboard
from app.evaluation.metrics import METRICS, Objective
from app.evaluation.report import NextCommand
from app.evaluation.sealed_test import SealedTestReport
from app.execution.messages import RunOpened
from app.fold_choice import FoldChoice
from app.goals import SearchGoals
from app.run_directory import RunDirectory
from app.search.limits import Limit
from app.search.space import Float, Int, Space
from app.search_progress import Search
from app.view import ConsoleView
from pipelines.data_report import Finding, Severity

SEARCH = Search(
    algorithm="bayesian",
    reason="about 9 full trials fit the budget and the space has 16 parameters, so a model chooses each next trial.",
    objective="roc_auc",
    max_epochs=27,
    seed=42,
    max_trials=None,
)
STAGES = {
    "final": {"epochs": 9, "wanted_epochs": 9},
    "export": {"directory": "export/small/1", "rows": 1234, "max_difference": 1.2e-7},
}


def lines(content: RenderableType, *, width: int = 80) -> list[str]:
    file = io.StringIO()
    ConsoleView(Console(file=file, width=width)).show(content)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def text(content: RenderableType, *, width: int = 80) -> str:
    return "\n".join(lines(content, width=width))


def finding(severity: Severity, message: str) -> Finding:
    return Finding(severity=severity, code="made_for_a_test", message=message)


def with_findings(data: Any, *findings: Finding) -> Any:
    return dataclasses.replace(data, profile=dataclasses.replace(data.profile, findings=findings))


def test_every_column_is_shown_with_what_it_is_taken_as_and_why(small_run: Any) -> None:
    found = text(summary.data_found(small_run.data.known), width=120)
    assert "target  outcome: binary" in found
    assert "classes high, low" in found
    assert "(sealed until the end)" in found
    for feature in small_run.data.schema.features:
        (line,) = [line for line in found.splitlines() if line.startswith(f"{feature.name} ")]
        assert (feature.kind.value if feature.used else "(dropped)") in line
        assert feature.reason in line
    assert "shop[1]" in found  # not taken for markup


def test_warnings_come_before_what_is_only_worth_knowing(small_run: Any) -> None:
    data = with_findings(
        small_run.data,
        finding(Severity.INFO, "first [found]"),
        finding(Severity.WARNING, "a leak"),
        finding(Severity.INFO, "last found"),
    )
    found = [line for line in lines(summary.data_found(data.known)) if line.startswith(("warning", "info"))]
    assert found == ["warning  a leak", "info     first [found]", "info     last found"]


def test_a_long_finding_goes_on_under_itself(small_run: Any) -> None:
    data = with_findings(small_run.data, finding(Severity.WARNING, "word " * 30))
    found = lines(summary.data_found(data.known))
    at = next(index for index, line in enumerate(found) if line.startswith("warning"))
    assert found[at + 1].startswith("         word")


def test_many_columns_and_findings_are_counted_instead_of_shown(small_run: Any) -> None:
    data = small_run.data
    feature = data.schema.features[0]
    features = tuple(dataclasses.replace(feature, name=f"column {index}") for index in range(1_034))
    schema = dataclasses.replace(data.schema, features=features)
    many = [finding(Severity.INFO, f"number {index}") for index in range(40)]
    found = text(summary.data_found(with_findings(dataclasses.replace(data, schema=schema), *many).known))
    assert "and 1,004 more columns, see schema.json" in found
    assert "and 25 more findings, see profile.json" in found
    assert "column 30" not in found


def test_many_classes_are_not_all_named(small_run: Any) -> None:
    target = dataclasses.replace(small_run.data.schema.target, classes=tuple("abcdefghijk"))
    data = dataclasses.replace(small_run.data, schema=dataclasses.replace(small_run.data.schema, target=target))
    assert "classes a, b, c, d, e, f, g, h …" in " ".join(lines(summary.data_found(data.known)))


SPACE = Space([Int("depth", 1, 4), Float("dropout", 0.0, 0.5)])
LIMITS = (Limit("latency_ms", 5.0),)


def test_the_search_says_how_and_why() -> None:
    shown = summary.search_begins(
        SEARCH,
        SPACE,
        goals=SearchGoals(
            objective=Objective(METRICS["roc_auc"], "two classes"), others=("latency_ms",), limits=LIMITS
        ),
        opened=RunOpened(space=SPACE, devices="CPU:0, float32", num_replicas=1, alone="mixed precision"),
        space_name="mlp",
        folds=FoldChoice(number=1, reason="many rows", is_worth_saying=False),
    )
    found = lines(shown)
    assert found[0] == "space      mlp: 2 hyperparameters"
    assert found[1].startswith("search     bayesian: about 9 full trials")
    assert found[2].startswith("           ")  # goes on under itself
    assert "objective  validation roc_auc, maximize (two classes)" in found
    assert "training   up to 27 epochs a trial on CPU:0, float32; seed 42" in found
    assert "limits     latency <= 5 ms" in found
    assert any(line.startswith("beside it  latency_ms: the best compromises") for line in found)
    assert "packing    each trial alone: mixed precision" in found


@pytest.mark.parametrize("width", [80, 120])
def test_the_search_ends_with_a_leaderboard_as_wide_as_the_terminal(width: int) -> None:
    values = {f"parameter_{index}": index for index in range(20)}
    rows = [
        TrialRow(
            trial=i, status="completed", value=i / 10, hyperparameters={k: v + i for k, v in values.items()}
        )
        for i in range(3)
    ]
    board = leaderboard(rows, metric=METRICS["roc_auc"])
    shown = summary.search_ended("all trials are done", board=board, metric=METRICS["roc_auc"], importance={})
    found = lines(shown, width=width)
    assert found[0] == "Search ended: all trials are done. 3 trials: 3 completed."
    assert width - 14 < max(map(len, found)) <= width
    assert len(found) == 6


def test_one_trial_is_not_called_trials() -> None:
    board = leaderboard([TrialRow(trial=0, status="pruned", hyperparameters={})], metric=METRICS["roc_auc"])
    shares = {"depth": 0.75, "width": 0.25}
    shown = summary.search_ended("interrupted", board=board, metric=METRICS["roc_auc"], importance=shares)
    found = text(shown)
    assert found.startswith("Search ended: interrupted. 1 trial: 1 pruned.")
    assert "importance: depth 75%, width 25%" in found


def test_the_sealed_test_stands_beside_its_baselines(tested: SealedTestReport) -> None:
    found = lines(summary.test_result(tested))
    assert "Sealed test, opened once (18 rows)" in found
    assert [line.split() for line in found[2:5]] == [
        ["metric", "model", "95", "%", "interval", "constant", "linear"],
        ["roc_auc", "0.9", "0.8", "to", "0.97", "0.5", "0.89"],
        ["brier", "0.1234", "-", "0.25", "-"],
    ]
    said = " ".join(found[6:])
    assert "By roc_auc the model is better than the constant baseline: the difference is +0.40" in said
    assert "no clear difference to the linear baseline" in said
    assert said.endswith("A note.")


def test_the_end_names_the_export_its_proof_and_the_commands() -> None:
    commands = [NextCommand(command="tamiz serve 'my run'", purpose="serve the model")]
    shown = summary.what_next(RunDirectory("runs/small"), commands, stages=STAGES, seconds=65.0)
    found = lines(shown)
    assert "SavedModel  runs/small/export/small/1" in found
    assert "1,234 held-out and hostile rows" in " ".join(found)
    assert "report      runs/small/report.html" in found
    assert "took        1 min 5 s" in found
    assert found[-2:] == ["  # serve the model", "  tamiz serve 'my run'"]
    assert "cut" not in " ".join(found)


def test_paths_and_commands_stay_one_line_to_be_copied() -> None:
    deep = "/".join(["a folder with a long name"] * 6)
    commands = [NextCommand(command=f"tamiz predict '{deep}' new.csv", purpose="answer new rows")]
    found = lines(summary.what_next(RunDirectory(deep), commands, stages=STAGES, seconds=1.0))
    assert f"SavedModel  {deep}/export/small/1" in found
    assert f"  tamiz predict '{deep}' new.csv" in found


def test_a_final_training_that_was_cut_is_told() -> None:
    stages = STAGES | {"final": {"epochs": 5, "wanted_epochs": 9}}
    found = text(summary.what_next(RunDirectory("r"), [], stages=stages, seconds=1.0), width=120)
    assert "the final training was cut at epoch 5 of 9: the time was used up" in found
    assert "validation rows" not in found
    stages = STAGES | {"final": {"epochs": 5, "wanted_epochs": 9, "of_trial": True}}
    found = text(summary.what_next(RunDirectory("r"), [], stages=stages, seconds=1.0), width=200)
    assert "the network is the one that the trial came to, which has not learned from the validation rows" in found
    stages = STAGES | {"final": {"epochs": 0, "wanted_epochs": 9, "of_trial": True}}
    found = text(summary.what_next(RunDirectory("r"), [], stages=stages, seconds=1.0), width=200)
    assert "the winner was not trained again, which would have taken too long; the network is" in found


def test_what_the_export_measures_stands_beside_its_proof() -> None:
    stages = {
        "export": {"rows": 9, "max_difference": 0.0, "directory": "export/x/1", "measures": {"latency_ms": 7.5}},
        "final": {"epochs": 3, "wanted_epochs": 3},
    }
    shown = summary.what_next(RunDirectory("r"), [], stages=stages, seconds=1.0, limits=LIMITS)
    assert "latency 7.5 ms" in text(shown)
    assert "the exported model breaks the limit latency <= 5 ms" in text(shown)
    assert "breaks" not in text(summary.what_next(RunDirectory("r"), [], stages=stages, seconds=1.0))
