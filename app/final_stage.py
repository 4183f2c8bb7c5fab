"""After the search: final training, the sealed test, export with proof, and the report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.config import ExperimentConfig
from app.coverage_note import coverage_note
from app.data_files import SPLIT_COLUMN, read_arrow, versions
from app.data_stage import protocol
from app.encoded_rows import load_encoded
from app.errors import SearchError, WorkerError
from app.evaluation import baselines
from app.evaluation.baselines import EncodedRows
from app.evaluation.conformal import stated_coverage
from app.evaluation.pixel_features import with_pixel_features
from app.evaluation.predictions import Predictions
from app.evaluation.sealed_test import SINGLE, SealedTestReport, report_sealed_test
from app.execution.executor import Answering
from app.execution.messages import (
    EpochEnded,
    ExportMeasured,
    ExportModel,
    FinalTrained,
    MeasureExport,
    ModelExported,
    OpenTest,
    TestOpened,
    TrainFinal,
)
from app.run_directory import FEATURES_FILE, RunDirectory, read_json, write_json
from app.search.limits import PARAMETERS
from app.search.trial import Resource, Trial
from app.search_progress import Progress
from app.search_record import SearchRecord
from app.state_store import BEST_FILE, state_store
from app.time_budget import TimeBudget
from app.training.seeding import derive_seed
from app.view import View
from pipelines.preprocessing import PreprocessingState
from pipelines.raw_columns import raw_columns
from pipelines.schema import DatasetSchema, Task
from pipelines.splits import Split
from pipelines.windows import WindowSpec
from tf_serving.errors import ExportError
from tf_serving.hostile_rows import BATCH_SIZES
from tf_serving.model_card import CardData, CardInput, CardMetric, ModelCard, model_card
from tf_serving.model_versions import discard, publish
from tf_serving.sample_request import sample_instances
from tf_serving.verify import DEFAULT_TIMEOUT_SECONDS, VerificationProcess

_R = TypeVar("_R")

SECONDS_A_COLUMN = 0.6
"""What the proof of an export may take longer for each column, on a machine that is busy with other things."""

IMAGE_BATCH_SIZES = (1, 7, 32)
"""Images of a call that an export is proved by: what a network makes of a thousand images would not fit into memory."""

FINAL_SHARE = 0.75
"""Of the time kept for what comes after the final training: a training that is late may take the rest of it."""


def train_final(executor: Answering, *, record: SearchRecord, budget: TimeBudget, view: View) -> None:
    """Trains the winner from scratch for as many epochs as it took to its best one, where there is time for that."""
    if "final" in record.progress.stages:
        return
    best = record.progress.winner
    if best is None:
        raise SearchError("there is no trial with a result to train the final model from")
    deadline = budget.end - FINAL_SHARE * budget.finishing
    reason = _why_as_it_is(best, record=record, budget=budget)
    if reason:
        best = _with_network(best, record=record, view=view)
    if reason and _has_network(best, record):
        view.say(f"\nThe winner, trial {best.number}, stays as it is: {reason}.")
        deadline = min(deadline, time.time())
    else:
        view.say(f"\nTraining the winner, trial {best.number}, from scratch …")
    epochs = record.progress.best_epoch(best)
    board = record.final_board()

    def show(event: EpochEnded) -> None:
        board.scalars(event.epoch, event.scalars, wall_time=event.wall_time)

    request = TrainFinal(trial=best.number, hyperparameters=best.hyperparameters, epochs=epochs, deadline=deadline)
    trained = _expect(FinalTrained, executor.call(request, on_epoch=show))
    board.close()
    record.stage_done(
        "final",
        trial=best.number,
        epochs=trained.epochs,
        wanted_epochs=epochs,
        of_trial=trained.of_trial,
        parameters=trained.num_parameters,
        seconds=round(trained.seconds, 3),
        # A later search may begin with this network, and has to know that it is this one.
        sha256=hashlib.sha256(record.directory.model_file.read_bytes()).hexdigest(),
    )


def _why_as_it_is(winner: Trial, *, record: SearchRecord, budget: TimeBudget) -> str:
    """Returns why the network that the winner came to is exported as it is; nothing where it is trained again."""
    if winner.resource is Resource.FOLDS:
        return ""  # the networks of several folds are not one network that could be exported
    target = DatasetSchema.from_json(read_json(record.directory.schema_file)).target
    if target.quantiles:
        return "the validation rows widen its intervals"
    seconds, building = record.progress.refit_seconds(winner), record.progress.building_seconds(winner)
    return "" if budget.refits(seconds, building=building) else "training it again would take too long"


def _has_network(trial: Trial, record: SearchRecord) -> bool:
    return BEST_FILE in state_store(record.directory).sizes(trial.number)


def _with_network(winner: Trial, *, record: SearchRecord, view: View) -> Trial:
    """Returns the winner, or the best trial with a network where its own was not kept: it may never have led."""
    kept = next((trial for trial in (winner, *record.progress.ranking) if _has_network(trial, record)), winner)
    if kept is not winner:
        view.say(
            f"\nTrial {winner.number} was expected to be the best, but its network was not kept (see --keep) and is "
            f"not trained again: trial {kept.number} takes its place."
        )
        record.stage_done("search", **{**record.progress.stages["search"], "winner": kept.number})
    return kept


def evaluate(directory: RunDirectory, *, executor: Answering, record: SearchRecord) -> SealedTestReport:
    """Opens the sealed test rows, once, and scores what is exported beside the best single model and two baselines."""
    if "test" in record.progress.stages:
        return SealedTestReport.from_json(read_json(directory.evaluation_file))
    opened = _expect(TestOpened, executor.call(OpenTest()))
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    state = PreprocessingState.from_json(read_json(directory.preprocessing_file))
    task, num_classes, levels = schema.target.task, schema.num_classes, schema.target.quantiles
    seed = record.progress.search.seed if record.progress.search else 0
    # The baselines learn from the same rows as the final model: training and validation.
    train = with_pixel_features(load_encoded(directory.encoded))
    test = EncodedRows(
        # Where training images are not kept decoded, pixels are no features of the baseline.
        numeric=opened.features["numeric"][:, : train.numeric.shape[1]],
        categorical=opened.features["categorical"],
        y=opened.predictions.y,
        weights=opened.predictions.weights,
    )
    tested = report_sealed_test(
        opened.predictions,
        baselines={
            **({} if opened.single is None else {SINGLE: opened.single}),
            **_repeated_season(directory, schema, train=train, test=test),
            "constant": baselines.constant(train, test, task=task, num_classes=num_classes, levels=levels),
            "linear": baselines.linear(
                train,
                test,
                task=task,
                cardinalities=tuple(state.cardinalities),
                num_classes=num_classes,
                levels=levels,
                seed=derive_seed(seed, "baseline"),
            ),
        },
        objective=record.objective,
        classes=schema.target.classes,
        seed=derive_seed(seed, "bootstrap"),
    )
    if levels:
        tested = replace(tested, notes=(*tested.notes, coverage_note(tested, levels, directory)))
    if schema.weight:
        told = f"Metrics and intervals count each row by its {schema.weight!r}; the confusion counts rows."
        tested = replace(tested, notes=(*tested.notes, told))
    write_json(directory.evaluation_file, tested.to_json())
    record.stage_done("test", rows=tested.num_rows)
    return tested


def _repeated_season(
    directory: RunDirectory, schema: DatasetSchema, *, train: EncodedRows, test: EncodedRows
) -> dict[str, Predictions]:
    """Returns what repeating the last season forecasts on the sealed windows; nothing where there is no forecast."""
    if schema.windows is None:
        return {}
    name, values = baselines.seasonal_values(read_arrow(directory.test_file), WindowSpec.from_json(schema.windows))
    return {name: baselines.repeated_season(train, test, values)}


def export(
    directory: RunDirectory,
    config: ExperimentConfig,
    *,
    executor: Answering,
    verification: VerificationProcess,
    record: SearchRecord,
    tested: SealedTestReport,
) -> Path:
    """Exports the final model, proves in a fresh process that it answers as the Keras model does, and publishes it.

    Raises:
        ExportError: The export cannot be written, or does not answer as the Keras model does.
    """
    if "export" in record.progress.stages:
        return directory.path / str(record.progress.stages["export"]["directory"])
    files = {
        "schema.json": directory.schema_file.read_bytes(),
        "profile.json": directory.profile_file.read_bytes(),
        "model_card.md": card_text(directory, config, tested, networks=networks_told(record.progress)).encode(),
    }
    features = directory.path / FEATURES_FILE
    if features.is_file():
        files[FEATURES_FILE] = features.read_bytes()
    staged = _expect(ModelExported, executor.call(ExportModel(extra_files=files)))
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    batch_sizes = IMAGE_BATCH_SIZES if schema.has_images else BATCH_SIZES
    try:
        # A wide table has a row with each column missing, which takes a call of as many inputs.
        seconds = DEFAULT_TIMEOUT_SECONDS + SECONDS_A_COLUMN * len(schema.used_features)
        proof = verification.verify(
            Path(staged.directory), Path(staged.cases), timeout_seconds=seconds, batch_sizes=batch_sizes
        )
    except ExportError:
        discard(Path(staged.directory))
        raise
    published = publish(Path(staged.directory))
    graph = directory.best / "graph.pb"
    with record.final_board() as board:
        board.graph(graph.read_bytes())
    graph.unlink()
    record.stage_done(
        "export",
        directory=str(published.relative_to(directory.path.absolute())),
        rows=proof.num_rows,
        batch_sizes=list(proof.batch_sizes),
        max_difference=proof.max_difference,
        measures=_measures(published, executor=executor, record=record),
    )
    return published


def _measures(published: Path, *, executor: Answering, record: SearchRecord) -> dict[str, float]:
    """Returns what the limits and further objectives of the search are about, measured on what will be served."""
    search = record.progress.search
    if search is None or not (search.others or search.limits):
        return {}
    measured = _expect(ExportMeasured, executor.call(MeasureExport(directory=str(published))))
    stages = record.progress.stages
    return {**measured.measures, PARAMETERS: float(stages.get("ensemble", stages["final"])["parameters"])}


def networks_told(progress: Progress) -> list[str]:
    """Returns sentences on the networks that answer."""
    stages = progress.stages
    decided = stages.get("ensemble")
    if decided is None:
        return []
    sentences = [decided["told"]]
    sentences += [f"trial {trial}: {weight:.1%} of the answer" for trial, weight in decided["members"].items()]
    sentences.append(f"{decided['networks']:,} networks with {decided['parameters']:,} weights together")
    if decided["temperature"] != 1.0:
        sentences.append(f"probabilities at temperature {decided['temperature']:.3g}, fitted on rows held out")
    return sentences


def card_text(
    directory: RunDirectory, config: ExperimentConfig, tested: SealedTestReport, *, networks: Sequence[str] = ()
) -> str:
    """Returns the model card, one Markdown page; `networks` are sentences on the networks that answer."""
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    manifest = read_json(directory.manifest_file)["data"]
    state = PreprocessingState.from_json(read_json(directory.preprocessing_file))
    rows = manifest["rows"]
    return model_card(
        ModelCard(
            name=config.name,
            task=schema.target.task.value,
            data=CardData(
                source=manifest["description"],
                num_rows=sum(rows.values()),
                num_columns=manifest["columns"],
                target=schema.target.name,
                classes=schema.target.classes,
                splits=rows,
                protocol=protocol(schema, config) + _judged(manifest),
            ),
            metrics=[
                CardMetric(
                    name=estimate.name,
                    value=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                    baselines={
                        name: other.value
                        for name in tested.baselines
                        if (other := tested.estimate(estimate.name, baseline=name)) is not None
                    },
                )
                for estimate in tested.model
            ],
            inputs=[
                CardInput(name=feature.name, dtype=feature.raw_type.value, kind=feature.kind.value)
                for feature in schema.used_features
            ],
            outputs=_outputs(schema),
            networks=networks,
            preprocessing=_preprocessing(state),
            limits=_limits(rows),
            versions=versions(),
            sample_instance=sample_instance(directory, schema),
        )
    )


def sample_instance(directory: RunDirectory, schema: DatasetSchema) -> Mapping[str, Any]:
    """Returns the first validation row as a predict request holds it: a page that is published shows no sealed row."""
    development = read_arrow(directory.development_file)
    validation = np.flatnonzero(development.column(SPLIT_COLUMN).to_numpy() == Split.VALIDATION)
    row = raw_columns(development.take(validation[:1]), schema)
    return next(iter(sample_instances(schema.used_features, row, num_rows=1)), {})


def _judged(manifest: Mapping[str, Any]) -> str:
    folds = manifest.get("folds", {"number": 1})["number"]
    if folds == 1:
        return ""
    return f" Trials were judged by cross-validation in {folds} folds of the training and validation rows."


def _preprocessing(state: PreprocessingState) -> list[str]:
    """Returns sentences on what happens to the raw values inside the graph."""
    sentences = [
        f"{column.name}: {column.reason}{'; missing values have an indicator' if column.has_indicator else ''}"
        for column in state.numeric
    ]
    sentences += [
        f"{column.name}: {len(column.vocabulary)} categories, one bucket for missing values, "
        f"{column.num_buckets or 'one'} for rare and unseen ones"
        for column in state.categorical
    ]
    sentences += [f"{column.name}: date parts and cycles" for column in state.datetimes]
    sentences += [f"{column.name}: {column.reason}" for column in state.texts]
    sentences += [f"{column.name}: {column.reason}" for column in state.images]
    return [*sentences, *(f"{column.name}: {column.reason}" for column in state.targets)]


def _outputs(schema: DatasetSchema) -> dict[str, str]:
    if schema.target.columns:
        kind = "whether the label holds" if schema.target.classes else "in its own units"
        named = dict.fromkeys(schema.target.columns, kind)
        together = {"probabilities": f"one a label, in the order {', '.join(named)}"}
        return named | (together if schema.target.classes else {})
    if schema.target.task is Task.REGRESSION:
        units = {"prediction": f"{schema.target.name}, in its own units"}
        return units | _interval_outputs(schema.target.quantiles)
    return {
        "probabilities": f"one a class, in the order {', '.join(schema.target.classes[:20])}",
        "label": "the class predicted",
    }


def _interval_outputs(levels: tuple[float, ...]) -> dict[str, str]:
    if not levels:
        return {}
    stated = f"ends of the interval that holds {stated_coverage(levels):.0%} of the rows"
    more = {"quantiles": f"at the levels {', '.join(map(str, levels))}"} if len(levels) > 3 else {}
    return {"lower": stated, "upper": stated, **more}


def _limits(rows: dict[str, int]) -> list[str]:
    return [
        f"Learned from {rows['train'] + rows['validation']:,} rows; the intervals say how far the test can be trusted.",
        "Rows unlike those it was trained on get an answer too: watch the inputs for drift (profile.json).",
    ]


def _expect(kind: type[_R], reply: object) -> _R:
    if not isinstance(reply, kind):
        raise WorkerError(f"the worker answered {type(reply).__name__}: expected {kind.__name__}")
    return reply
