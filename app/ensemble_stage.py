"""After the final training: which trials answer together, at what temperature, and within which limits.

The choice is made here, on what the trials answered on the rows that judged them; a worker builds and saves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from app.config import ExperimentConfig
from app.data_files import FOLD_COLUMN, judged_rows, read_arrow
from app.encoded_rows import load_encoded
from app.ensemble_size import max_members, pool_size
from app.errors import WorkerError
from app.evaluation.conformal import interval_margin
from app.evaluation.ensemble import (
    Candidate,
    average,
    is_better,
    is_surely_no_worse,
    proper_metric,
    select_resampled,
    without_last,
)
from app.evaluation.metrics import METRICS, Metric
from app.evaluation.number_text import number_text
from app.evaluation.predictions import Predictions
from app.evaluation.temperature import fit_temperature
from app.execution.executor import Answering
from app.execution.messages import EnsembleMember, EnsembleSaved, SaveEnsemble
from app.fold_choice import fold_parts
from app.goals import measure_label, shown_limit, shown_measure
from app.run_directory import RunDirectory, read_json
from app.search.limits import MEMORY, MODEL_MEASURES, Limit
from app.search_record import SearchRecord
from app.state_store import PREDICTIONS_FILE, state_store
from app.summary import ensemble_chosen
from app.time_budget import TimeBudget
from app.training.kept_predictions import KeptPredictions, kept_predictions
from app.trial_states import TrialStates, ensemble_parts
from app.view import View
from pipelines.schema import DatasetSchema, TargetSpec, Task
from pipelines.splits import fold_rows

AVERAGED_TASKS = (Task.BINARY, Task.MULTICLASS, Task.REGRESSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What answers.

    Attributes:
        weights: Trial -> share, the most important first; empty for the winner alone.
        told: Why, in one sentence.
        value: The objective of the average on the rows held out; None for the winner alone.
        single_value: That of the winner's trial; None where it is not known.
    """

    weights: Mapping[int, float]
    told: str
    value: float | None = None
    single_value: float | None = None


def compose(
    directory: RunDirectory,
    config: ExperimentConfig,
    *,
    executor: Answering,
    record: SearchRecord,
    budget: TimeBudget,
    view: View,
) -> None:
    """Chooses what is exported, has it built within limits and time, and says what it is.

    Raises:
        WorkerError: The worker could not save it.
    """
    # What was tested is exported, also where an earlier version tested it without this choice.
    if not {"ensemble", "test"}.isdisjoint(record.progress.stages):
        return
    search, winner = record.progress.search, record.progress.winner
    if search is None or winner is None:
        raise RuntimeError("there is no winner: expected compose() after train_final()")
    most = max_members(config.search.ensemble, num_objectives=1 + len(search.others), num_folds=search.folds)
    ranking = record.progress.ranking
    pool = [trial.number for trial in ranking[: pool_size(most)]]
    candidates = held_out_candidates(directory, dict.fromkeys([winner.number, *pool]))
    target = DatasetSchema.from_json(read_json(directory.schema_file)).target
    choice = _chosen(candidates, target, winner=winner.number, most=most, record=record)
    building = sum(record.progress.building_seconds(record.history[trial]) for trial in choice.weights)
    deadline = budget.compose_deadline(building)
    builder = _Builder(executor, record=record, candidates=candidates, winner=winner.number, deadline=deadline)
    choice, saved = builder.fitted(choice, limits=search.limits)
    members = {str(trial): round(weight, 6) for trial, weight in choice.weights.items()}
    record.stage_done(
        "ensemble",
        members=members,
        told=choice.told,
        temperature=builder.temperature(choice.weights),
        networks=saved.num_networks,
        parameters=saved.num_parameters,
        value=choice.value,
        single_value=choice.single_value,
    )
    TrialStates(directory, known=record.history, keep=config.keep).delete_pool(ranking)
    values = {trial: record.objective.value(one.predictions) for trial, one in candidates.items()}
    view.show(ensemble_chosen(choice.told, choice.weights, values=values, metric=record.objective))


def can_be_averaged(target: TargetSpec) -> bool:
    """Returns whether networks for `target` answer together: several targets have no common objective to choose by."""
    return target.task in AVERAGED_TASKS and not target.columns


def held_out_candidates(directory: RunDirectory, trials: Mapping[int, object]) -> dict[int, Candidate]:
    """Returns what `trials` answered on the rows held out from them, all folds together; without those that have not.

    Args:
        directory: The experiment.
        trials: Their numbers, as keys.
    """
    schema = DatasetSchema.from_json(read_json(directory.schema_file))
    if not can_be_averaged(schema.target):
        return {}
    development = read_arrow(directory.development_file)
    manifest = read_json(directory.manifest_file)["data"]
    if fold_parts(manifest) > 1:
        folds = development.column(FOLD_COLUMN).to_numpy()
        in_time = bool(manifest["folds"]["in_time"])
        rows = [fold_rows(folds, fold, in_time=in_time)[1] for fold in range(int(folds.max()) + 1)]
    else:
        rows = [judged_rows(development)]
    encoded = load_encoded(directory.encoded)
    held_out = np.concatenate(rows)
    found, states = {}, state_store(directory)
    for trial in trials:
        with states.held(trial, only=[PREDICTIONS_FILE]) as state:
            kept = [kept_predictions(part) for part in ensemble_parts(state)]
        parts = [part for part in kept if part is not None]
        if [part.num_rows for part in parts] != [len(part) for part in rows]:
            continue
        # An earlier version kept the median alone.
        if schema.target.quantiles and any(part.quantiles is None for part in parts):
            continue
        predictions = Predictions(
            task=schema.target.task,
            y=encoded.y[held_out],
            probabilities=_joined([part.probabilities for part in parts]),
            values=_joined([part.values for part in parts]),
            quantiles=_joined([part.quantiles for part in parts]),
            levels=schema.target.quantiles,
            weights=None if encoded.weights is None else encoded.weights[held_out],
        )
        found[trial] = _with_labels(trial, predictions, parts[0])
    return found


def _with_labels(trial: int, predictions: Predictions, kept: KeptPredictions) -> Candidate:
    one = Candidate(trial=trial, predictions=predictions, class_weights=kept.class_weights)
    return replace(one, predictions=average([one], [1.0]))


def _joined(parts: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None]) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def _chosen(
    candidates: Mapping[int, Candidate], target: TargetSpec, *, winner: int, most: int, record: SearchRecord
) -> Chosen:
    metric, search = record.objective, record.progress.search
    folds = search.folds if search else 1
    own = candidates.get(winner)
    alone = Chosen(weights={}, told="", single_value=None if own is None else metric.value(own.predictions))
    the_winner = f"The winner, trial {winner}, is exported alone"
    if most == 1:
        several = search is not None and search.others
        reason = "an average has no place on a front of single networks" if several else "as asked"
        return replace(alone, told=f"{the_winner}: {reason}.")
    if not can_be_averaged(target):
        return replace(alone, told=f"{the_winner}: there are several targets.")
    if own is None:
        return replace(alone, told=f"{the_winner}: what it answered on the rows that judged it was not kept.")
    if len(candidates) == 1 and folds == 1:
        return replace(alone, told=f"{the_winner}: there is no other trial to average it with.")
    selection = select_resampled(list(candidates.values()), objective=metric, max_members=most)
    weights = dict(selection.weights)
    if len(weights) == 1:
        # One trial that is best by these rows alone; the search knows luck from merit.
        weights = {winner: 1.0}
    averaged = average([candidates[trial] for trial in weights], list(weights.values()))
    both = averaged, own.predictions
    if len(weights) > 1 and not (is_better(*both, objective=metric) or is_surely_no_worse(*both, objective=metric)):
        weights, averaged = {winner: 1.0}, own.predictions
    if len(weights) == 1 and folds == 1:
        judged = "on the validation rows"
        return replace(alone, told=f"{the_winner}: no average of {len(candidates)} trials is better {judged}.")
    if broken := _broken_metric(averaged, search.limits if search else ()):
        return replace(alone, told=f"{the_winner}: the average of {len(weights)} breaks the limit {broken}.")
    value = metric.value(averaged)
    return Chosen(
        weights=weights,
        told=_told(weights, winner=winner, folds=folds, metric=metric, answers=(averaged, own.predictions)),
        value=value,
        single_value=alone.single_value,
    )


def _told(
    weights: Mapping[int, float],
    *,
    winner: int,
    folds: int,
    metric: Metric,
    answers: tuple[Predictions, Predictions],
) -> str:
    """Returns the sentence about an average; `answers` are its own and those of the winner, on the rows held out."""
    averaged, own = answers
    judged = _judged(folds)
    what = f"{len(weights)} trials answer together" if len(weights) > 1 else f"Trial {winner} answers"
    if folds > 1:
        what += f", {'each ' if len(weights) > 1 else ''}by the average of its {folds} fold networks"
    if len(weights) == 1:
        return f"{what}: {judged} {metric.name} {number_text(metric.value(own))}."
    told = f"{what}: {judged} {_compared(metric, averaged, own)} of the winner, trial {winner}, alone"
    if is_better(averaged, own, objective=metric):
        return f"{told}."
    return f"{told}, and {_compared(proper_metric(own), averaged, own)}, which so many rows say more surely."


def _compared(metric: Metric, averaged: Predictions, own: Predictions) -> str:
    return f"{metric.name} {number_text(metric.value(averaged))} against {number_text(metric.value(own))}"


def _judged(folds: int) -> str:
    return "out-of-fold" if folds > 1 else "validation"


def _broken_metric(predictions: Predictions, limits: Sequence[Limit]) -> str:
    for limit in limits:
        metric = METRICS.get(limit.measure)
        if metric is not None and not limit.holds(metric.to_loss(metric.value(predictions))):
            return shown_limit(limit)
    return ""


@final
class _Builder:
    """Has ensembles built, smaller and smaller ones until one keeps limits and time."""

    def __init__(
        self,
        executor: Answering,
        *,
        record: SearchRecord,
        candidates: Mapping[int, Candidate],
        winner: int,
        deadline: float,
    ) -> None:
        self._executor, self._record, self._candidates = executor, record, candidates
        self._winner, self._deadline = winner, deadline

    def temperature(self, weights: Mapping[int, float]) -> float:
        """Returns the temperature of an average, fitted on the rows held out; 1 where nothing is known."""
        weights = weights or {self._winner: 1.0}
        if not set(weights) <= set(self._candidates):
            return 1.0
        return fit_temperature(average([self._candidates[trial] for trial in weights], list(weights.values())))

    def interval_margin(self, weights: Mapping[int, float]) -> float:
        """Returns what the intervals of an average are widened by, from the rows held out; 0 without intervals."""
        averaged = average([self._candidates[trial] for trial in weights], list(weights.values())) if weights else None
        return 0.0 if averaged is None or averaged.quantiles is None else interval_margin(averaged)

    def fitted(self, choice: Chosen, *, limits: Sequence[Limit]) -> tuple[Chosen, EnsembleSaved]:
        """Returns what is left of a choice, and how it was saved."""
        # Members are trained one after the other: each has kept a limit on the memory of that by itself.
        measured = [limit for limit in limits if limit.measure in MODEL_MEASURES and limit.measure != MEMORY]
        asked = tuple(dict.fromkeys(limit.measure for limit in measured if choice.weights))
        saved = self._saved(choice.weights, measure=asked)
        if len(saved.trials) < len(choice.weights):
            choice = self._shortened(choice, saved.trials, num_broken=len(saved.broken))
            saved = self._saved(choice.weights, measure=asked)
        broken = _first_broken(measured, saved.measures)
        if broken is None or not choice.weights:
            return choice, saved
        full, over = len(choice.weights), shown_measure(broken.measure, saved.measures[broken.measure])
        keep = _most(
            full, lambda number: self._keeps(choice, number, measured=measured, asked=asked), least=self._least
        )
        weights = self._first(choice.weights, keep)
        saved = self._saved(weights, measure=asked)
        networks = f"The average of {full} trials has a {measure_label(broken.measure)} of {over}"
        if not weights:
            told = f"{networks}, over the limit {shown_limit(broken)}: the winner, trial {self._winner}, answers alone."
            return Chosen(weights={}, told=told, single_value=choice.single_value), saved
        value = self._value(weights)
        found = shown_measure(broken.measure, saved.measures[broken.measure])
        told = (
            f"{networks}, over the limit {shown_limit(broken)}: {len(weights)} of them stay ({found}), with "
            f"{_judged(self._folds)} {self._record.objective.name} {number_text(value)}."
        )
        return replace(choice, weights=weights, told=told, value=value), saved

    def _keeps(self, choice: Chosen, number: int, *, measured: Sequence[Limit], asked: tuple[str, ...]) -> bool:
        weights = self._first(choice.weights, number)
        if not weights:
            return False
        return _first_broken(measured, self._saved(weights, measure=asked).measures) is None

    @property
    def _least(self) -> int:
        """Members of the smallest ensemble: with folds one trial is several networks."""
        return 1 if self._folds > 1 else 2

    def _first(self, weights: Mapping[int, float], number: int) -> Mapping[int, float]:
        """The `number` most important members; nothing where those would be no ensemble."""
        return without_last(weights, keep=number) if number >= self._least else {}

    def _shortened(self, choice: Chosen, trials: tuple[int, ...], *, num_broken: int) -> Chosen:
        """The choice without the members that could not be built or that there was no time for."""
        kept = {trial: choice.weights[trial] for trial in trials}
        weights = self._first(without_last(kept, keep=len(kept)), len(kept)) if kept else {}
        missing = len(choice.weights) - len(trials)
        broken = f"{num_broken} of {len(choice.weights)} members could not be built again (the worker's log says why)"
        if not weights:
            why = broken if num_broken == missing else "there was no time to build an ensemble"
            told = f"The winner, trial {self._winner}, is exported alone: {why}."
            return Chosen(weights={}, told=told, single_value=choice.single_value)
        told = self.told(weights)
        if num_broken:
            told += f" {broken}."
        if missing > num_broken:
            told += f" There was no time to build {missing - num_broken} more."
        return replace(choice, weights=weights, told=told, value=self._value(weights))

    def told(self, weights: Mapping[int, float]) -> str:
        """Returns the sentence about an average."""
        averaged = average([self._candidates[trial] for trial in weights], list(weights.values()))
        answers = (averaged, self._candidates[self._winner].predictions)
        metric = self._record.objective
        return _told(weights, winner=self._winner, folds=self._folds, metric=metric, answers=answers)

    @property
    def _folds(self) -> int:
        search = self._record.progress.search
        return 1 if search is None else search.folds

    def _value(self, weights: Mapping[int, float]) -> float:
        averaged = average([self._candidates[trial] for trial in weights], list(weights.values()))
        return self._record.objective.value(averaged)

    def _saved(self, weights: Mapping[int, float], *, measure: tuple[str, ...]) -> EnsembleSaved:
        history = self._record.history
        request = SaveEnsemble(
            members=tuple(
                EnsembleMember(trial=trial, hyperparameters=history[trial].hyperparameters, weight=weight)
                for trial, weight in weights.items()
            ),
            winner=self._winner,
            temperature=self.temperature(weights),
            single_temperature=self.temperature({}),
            interval_margin=self.interval_margin(weights),
            deadline=self._deadline,
            measure=measure,
        )
        saved = self._executor.call(request)
        if not isinstance(saved, EnsembleSaved):
            raise WorkerError(f"the worker answered {type(saved).__name__}: expected EnsembleSaved")
        return saved


def _first_broken(limits: Sequence[Limit], measures: Mapping[str, float]) -> Limit | None:
    return next((one for one in limits if one.measure in measures and not one.holds(measures[one.measure])), None)


def _most(number: int, keeps: Callable[[int], bool], *, least: int) -> int:
    """The most members, from `least` to fewer than `number`, that keep the limits; `least` - 1 where none do.

    By halving, since each further member only adds.
    """
    low, high = least - 1, number
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low
