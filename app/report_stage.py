"""The end of an experiment: leaderboard, report.html, and what is printed last."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from app.config import ExperimentConfig
from app.errors import RunDirectoryError
from app.evaluation.front_chart import FrontPicture, FrontPoint
from app.evaluation.leaderboard import TrialRow, leaderboard
from app.evaluation.metrics import METRICS
from app.evaluation.report import (
    DataSummary,
    NextCommand,
    ReportContent,
    ReportEnsemble,
    ReportFinding,
    ReportWinner,
    render_report,
)
from app.evaluation.sealed_test import SealedTestReport
from app.goals import measure_label, shown_measure
from app.overview import overview_of, status_of
from app.run_directory import RunDirectory, read_json, write_atomically
from app.search.limits import LATENCY, PARAMETERS, SIZE, violation
from app.search.objectives import Goals
from app.search.trial import Failed, Resource, Trial
from app.search_progress import Progress, read_progress
from app.search_record import SearchRecord
from app.shared_scores import agreement_of, agreement_told, ranking_warning, shared_values
from app.summary import final_told, test_result, what_next
from app.view import View
from pipelines.addresses import is_path
from pipelines.data_report import DataProfile
from pipelines.schema import DatasetSchema

_UNITS = {LATENCY: " in milliseconds", SIZE: " in bytes"}


def report(
    directory: RunDirectory,
    config: ExperimentConfig,
    *,
    record: SearchRecord,
    tested: SealedTestReport,
    view: View,
) -> None:
    """Writes report.html and shows the result of the sealed test, the export and the commands to go on with."""
    seconds = record.elapsed()
    content = _content(directory, config, record=record, tested=tested, seconds=seconds)
    write_atomically(directory.report_file, render_report(content))
    record.stage_done("report", seconds=round(seconds, 1))
    stages = record.progress.stages
    view.show(test_result(tested))
    limits = record.progress.search.limits if record.progress.search else ()
    view.show(what_next(directory, content.commands, stages=stages, seconds=seconds, limits=limits))


def next_commands(directory: RunDirectory, config: ExperimentConfig) -> list[NextCommand]:
    """Returns the commands to go on with."""
    run = shlex.quote(str(directory.path))
    source = config.data.source if config.data.source and is_path(config.data.source) else "NEW_ROWS.csv"
    data = shlex.quote(min(os.path.relpath(source), source, key=len))
    return [
        NextCommand(command=f"tamiz board {run}", purpose="look at the trials in TensorBoard"),
        NextCommand(command=f"tamiz predict {run} {data} --output predictions.parquet", purpose="answer new rows"),
        NextCommand(command=f"tamiz serve {run}", purpose="serve it over TensorFlow Serving's interface"),
    ]


def board_of(directory: RunDirectory) -> pd.DataFrame:
    """Returns the leaderboard of an experiment, from its journal."""
    return board_of_progress(read_begun(directory))


def read_begun(directory: RunDirectory) -> Progress:
    """Returns what the journal of a search says that has begun.

    Raises:
        RunDirectoryError: It has not.
    """
    progress = read_progress(directory)
    if progress.search is None:
        raise RunDirectoryError(f"{directory.path} has no search yet: go on with `tamiz resume {directory.path}`")
    return progress


def board_of_progress(progress: Progress) -> pd.DataFrame:
    """Returns the leaderboard of a search that has begun."""
    search = progress.search
    if search is None:
        raise ValueError("the search has not begun: expected a journal with a search")
    metric = METRICS[search.objective]
    weights, shared = ensemble_weights(progress), shared_values(progress)
    front = Goals(objectives=search.others, limits=search.limits).front(progress.history) if search.others else ()
    # Many trials share one accuracy on few rows; the search tells them apart by their validation loss.
    places = {trial.number: place for place, trial in enumerate(progress.ranking)}
    rows = [
        TrialRow(
            trial=trial.number,
            status=status_of(trial, progress),
            hyperparameters=trial.hyperparameters,
            value=None if loss is None or isinstance(trial.outcome, Failed) else metric.from_loss(loss),
            epochs=progress.epochs_trained(trial),
            parameters=progress.parameters.get(trial.number, 0),
            seconds=progress.seconds.get(trial.number, 0.0),
            reason=trial.outcome.reason if isinstance(trial.outcome, Failed) else "",
            weight=weights.get(trial.number, 0.0) if weights else None,
            folds=trial.epochs if progress.history.resource is Resource.FOLDS else 0,
            spread=progress.spread(trial),
            measures=measures_of(trial) | ({"shared": shared[trial.number]} if trial.number in shared else {}),
            broken=violation(trial, search.limits) or 0.0,
            front=trial.number in front if search.others else None,
            place=places.get(trial.number, len(places)),
        )
        for trial in progress.history.values()
        for loss in [progress.loss(trial)]
    ]
    return leaderboard(rows, metric=metric)


def ensemble_weights(progress: Progress) -> dict[int, float]:
    """Returns the members of the ensemble and their shares, largest first; nothing where the winner answers alone."""
    members = progress.stages.get("ensemble", {}).get("members", {})
    return {int(trial): float(weight) for trial, weight in members.items()}


def measures_of(trial: Trial) -> dict[str, float]:
    """Returns what was measured of a trial beside its objective, metrics as people know them.

    The number of weights is a column of every leaderboard.
    """
    return {
        name: METRICS[name].from_loss(value) if name in METRICS else value
        for name, value in trial.measures.items()
        if name != PARAMETERS
    }


def _content(
    directory: RunDirectory,
    config: ExperimentConfig,
    *,
    record: SearchRecord,
    tested: SealedTestReport,
    seconds: float,
) -> ReportContent:
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    profile = DataProfile.from_json(read_json(directory.profile_file))
    manifest = read_json(directory.manifest_file)["data"]
    search, final = record.progress.search, record.progress.stages["final"]
    metric = record.objective
    values = [
        # A mean over some of the folds is not to be compared with one over all.
        math.nan
        if loss is None or isinstance(trial.outcome, Failed) or (search and 1 < search.folds != trial.epochs)
        else metric.from_loss(loss)
        for trial in record.history.values()
        for loss in [record.progress.loss(trial)]
    ]
    return ReportContent(
        name=config.name,
        data=DataSummary(
            source=manifest["description"],
            target=schema.target.name,
            task=schema.target.task.value,
            num_features=len(schema.used_features),
            num_rows=sum(manifest["rows"].values()),
            num_train=manifest["rows"]["train"],
            num_validation=manifest["rows"]["validation"],
            num_test=manifest["rows"]["test"],
            folds=search.folds if search else 1,
        ),
        objective=metric,
        algorithm=_algorithm(record.progress),
        seconds=seconds,
        leaderboard=board_of(directory),
        progress=values,
        importance=overview_of(record.progress).importance,
        findings=[
            *(ReportFinding(severity=f.severity.value, message=f.message) for f in profile.findings),
            *_of_shared_weights(record.progress),
        ],
        winner=ReportWinner(
            trial=final["trial"],
            hyperparameters=record.history[final["trial"]].hyperparameters,
            epochs=epochs_learned(final),
            parameters=final["parameters"],
        ),
        fronts=_fronts(record),
        ensemble=_ensemble(record.progress),
        others=search.others if search else (),
        export=_measured(record.progress),
        final=_sentence(final_told(final)),
        test=tested,
        commands=next_commands(directory, config),
    )


def _algorithm(progress: Progress) -> str:
    """Returns how it was searched and why, and how far shared weights were right where cells were ranked by them."""
    if progress.search is None:
        return ""
    agreement = agreement_of(progress)
    told = "" if agreement is None else f"; {agreement_told(agreement)}"
    return f"{progress.search.algorithm}: {progress.search.reason}{told}"


def _of_shared_weights(progress: Progress) -> list[ReportFinding]:
    warning = ranking_warning(progress)
    return [ReportFinding(severity="warning", message=warning)] if warning else []


def _fronts(record: SearchRecord) -> list[FrontPicture]:
    """Returns the trials in every further objective; nothing where there is one objective."""
    search, metric = record.progress.search, record.objective
    if search is None or not search.others:
        return []
    best = Goals(objectives=search.others, limits=search.limits).front(record.progress.history)
    ended = [
        (trial, trial.loss)
        for trial in record.progress.history.values()
        if trial.loss is not None and not isinstance(trial.outcome, Failed)
    ]
    pictures = []
    for name in search.others:
        points = [
            FrontPoint(
                trial=trial.number,
                measure=METRICS[name].from_loss(trial.measures[name]) if name in METRICS else trial.measures[name],
                value=metric.from_loss(loss),
                is_best=trial.number in best,
            )
            for trial, loss in ended
            if name in trial.measures
        ]
        pictures.append(FrontPicture(measure=f"{measure_label(name)}{_UNITS.get(name, '')}", points=points))
    return pictures


def _measured(progress: Progress) -> dict[str, str]:
    """Returns what was measured of the exported model, whose weights stand elsewhere."""
    measures = progress.stages.get("export", {}).get("measures", {})
    return {
        measure_label(name).capitalize(): shown_measure(name, value)
        for name, value in measures.items()
        if name != PARAMETERS
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _ensemble(progress: Progress) -> ReportEnsemble | None:
    decided = progress.stages.get("ensemble")
    if decided is None:
        return None
    return ReportEnsemble(
        told=decided["told"],
        weights=ensemble_weights(progress),
        networks=decided["networks"],
        parameters=decided["parameters"],
        temperature=decided["temperature"],
    )


def epochs_learned(final: Mapping[str, Any]) -> int:
    """Returns the epochs that the final network learned for.

    Args:
        final: What the journal says of the final training. A network that stays as the search left it is that of its
            trial's best epoch, for which a training from scratch would have gone on as well.
    """
    return int(final["wanted_epochs"] if final.get("of_trial") else final["epochs"])
