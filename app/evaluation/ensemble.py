"""Which trials answer together, and with what weights: greedy selection with replacement (NumPy only).

Caruana, Niculescu-Mizil, Crew and Ksikes, *Ensemble selection from libraries of models* (ICML 2004): begin with
nothing, add again and again the candidate with which the average is best, take the best of the averages on the way. A
candidate that is added twice weighs twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.metrics import METRICS, Metric, Needs
from app.evaluation.predictions import Predictions
from app.evaluation.temperature import LEAST_PROBABILITY, tempered
from pipelines.schema import Task

MAX_CORRELATION = 0.995
"""Of the errors of two candidates; past it the worse one adds nothing but its cost."""

MAX_STEPS = 30
PATIENCE = 8  # steps without a better average

MAX_SAMPLES = 20
SAMPLED_ROWS = 200_000
"""Bootstrap samples, and their rows together; on more rows luck is no danger, and time is."""

CLEARLY = 0.9
"""Share of bootstrap samples on which a difference that is there shows."""

LEAST_SHARE = 0.02
"""Of the average, below which a member is not worth its place in the graph."""

MAX_CELLS = 200_000
"""Rows times classes that a selection looks at: the weights of a few members are known well enough from these."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A trial that may join.

    Args:
        trial: its number.
        predictions: on the rows held out from it, the same rows for all candidates.
        class_weights: weight of every class in its loss, which its labels ask for; () when all weigh the same.
    """

    trial: int
    predictions: Predictions
    class_weights: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was selected.

    Args:
        weights: trial -> share of the average, largest first; they sum to 1.
        correlated: candidates left out because a better one makes the same errors.
    """

    weights: Mapping[int, float]
    correlated: tuple[int, ...] = ()


def average(members: Sequence[Candidate], weights: Sequence[float], *, temperature: float = 1.0) -> Predictions:
    """The weighted average of what members answer on the same rows.

    Args:
        members: at least one; all on the same rows.
        weights: one for each, summing to 1.
        temperature: of the average; see `temperature.tempered`.
    """
    first = members[0]
    parts = [_named_answers(one) for one in members]
    combined = combine(parts, weights, temperature=temperature, class_weights=first.class_weights)
    return dataclasses.replace(
        first.predictions,
        probabilities=combined.get("probabilities"),
        labels=None if (ids := combined.get("label_ids")) is None else ids.astype(np.intp),
        values=combined.get("values"),
        quantiles=combined.get("quantiles"),
    )


def combine(
    parts: Sequence[Mapping[str, NDArray[Any]]],
    weights: Sequence[float],
    *,
    temperature: float = 1.0,
    class_weights: tuple[float, ...] = (),
) -> dict[str, NDArray[np.float64]]:
    """The weighted average of named arrays, by the same rules as the exported graph.

    The label is the most probable class of the average; where classes weigh differently in the loss, the one whose
    probability times its weight is largest, as for a single network. The temperature changes no label. Quantiles are
    averaged level by level (Vincent's average): weights are at least 0, so what rises in each member rises in the
    average.

    Args:
        parts: name -> array `(num_rows, ...)`, the same names in each: ``probabilities``, ``values`` or ``quantiles``.
        weights: one for each part, summing to 1.
        temperature: of the averaged probabilities.
        class_weights: weight of every class in the loss; () when all weigh the same.

    Returns:
        The averages, and beside ``probabilities`` the ``label_ids`` `(num_rows,)`.
    """
    names = [name for name in parts[0] if name != "label_ids"]
    combined = {
        name: np.sum([w * part[name].astype(np.float64) for w, part in zip(weights, parts, strict=True)], axis=0)
        for name in names
    }
    if "probabilities" in combined:
        mean = combined["probabilities"]
        combined["label_ids"] = (mean * np.asarray(class_weights) if class_weights else mean).argmax(axis=-1)
        if temperature != 1.0:
            combined["probabilities"] = tempered(mean, temperature)
    return combined


def select(candidates: Sequence[Candidate], *, objective: Metric, max_members: int) -> Selection:
    """Choose members and weights.

    Ties in the objective, which are many where it counts right answers, are broken by `proper_metric`.

    Args:
        candidates: at least one; on the same rows.
        objective: what the average is to be best by.
        max_members: different members at most, at least 1.
    """
    thinned = _thinned(candidates)
    scored = sorted(((_score(one.predictions, objective), one.trial, one) for one in thinned), key=lambda s: s[:2])
    kept, correlated = _uncorrelated([one for _, _, one in scored])
    counts: dict[int, int] = {}
    best, best_counts, since = (math.inf, math.inf), dict(counts), 0
    members = {one.trial: one for one in kept}
    total: NDArray[np.float64] | None = None
    for step in range(1, MAX_STEPS + 1):
        open_to = kept if len(counts) < max_members else [members[trial] for trial in counts]
        found = min(
            ((_score(_mean_with(total, one, step), objective), one.trial) for one in open_to),
            key=lambda scored_trial: scored_trial,
        )
        score, trial = found
        total = _answers(members[trial]) if total is None else total + _answers(members[trial])
        counts[trial] = counts.get(trial, 0) + 1
        since += 1
        if score < best:
            best, best_counts, since = score, dict(counts), 0
        if since >= PATIENCE:
            break
    return Selection(weights=_shares(best_counts), correlated=tuple(correlated))


def select_resampled(candidates: Sequence[Candidate], *, objective: Metric, max_members: int) -> Selection:
    """Choose members and weights on many bootstrap samples of the rows and take the mean of the weights.

    On few rows one greedy selection settles on what is best by luck. The bagged selection of Caruana, Munson and
    Niculescu-Mizil, *Getting the most out of ensemble selection* (ICDM 2006), with rows resampled, not candidates; it
    goes by the log loss, the squared error or the pinball loss, which rows tell of more surely than of an order or of
    right answers.
    Objectives of right answers, and many rows, are left to `select`.

    Args:
        candidates: at least one; on the same rows.
        objective: what the average is to be best by.
        max_members: different members at most, at least 1.
    """
    num_rows = candidates[0].predictions.num_rows
    samples = min(MAX_SAMPLES, SAMPLED_ROWS // num_rows)
    if objective.needs is Needs.LABELS or samples < 2 or min(max_members, len(candidates)) == 1:
        return select(candidates, objective=objective, max_members=max_members)
    scored = sorted((_score(one.predictions, objective), one.trial, one) for one in candidates)
    kept, correlated = _uncorrelated([one for _, _, one in scored])
    answers, given = _row_answers(kept), kept[0].predictions.weights
    cells = answers.shape[1] // num_rows
    rng, shares = np.random.default_rng(0), np.zeros(len(kept))
    for _ in range(samples):
        counts = np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows).astype(np.float64)
        drawn = np.repeat(counts if given is None else counts * given, cells)
        shares += _greedy_shares(answers, drawn, _row_losses(kept[0].predictions))
    order = np.argsort(-shares, kind="stable")[:max_members]
    weights = {kept[place].trial: float(shares[place]) for place in order if shares[place] >= LEAST_SHARE * samples}
    return Selection(weights=without_last(weights, keep=len(weights)), correlated=tuple(correlated))


def _row_answers(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """What the loss of a row depends on: the error, or the probability of what is true, (num_candidates, num_rows).

    Quantiles have an error a level, one row after the other, (num_candidates, num_rows * num_levels).
    """
    if candidates[0].predictions.task is Task.REGRESSION:
        return np.stack([_residuals(one.predictions).reshape(-1) for one in candidates])
    rows, y = np.arange(candidates[0].predictions.num_rows), candidates[0].predictions.y.astype(np.intp)
    return np.stack([_probabilities(one.predictions)[rows, y] for one in candidates])


def _row_losses(predictions: Predictions) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    if predictions.quantiles is not None:
        levels = np.tile(np.asarray(predictions.levels), predictions.num_rows)
        # The pinball loss of what is found less what is true.
        return lambda errors: np.maximum(-levels * errors, (1.0 - levels) * errors)
    if predictions.task is Task.REGRESSION:
        return np.square
    return lambda probabilities: -np.log(np.maximum(probabilities, LEAST_PROBABILITY))


def _greedy_shares(
    answers: NDArray[np.float64],
    row_weights: NDArray[np.float64],
    losses: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """The share of each candidate, (num_candidates,), in the best average that a greedy selection comes by."""
    counts, total = np.zeros(len(answers)), np.zeros(answers.shape[1])
    best, best_counts, since = math.inf, counts, 0
    for step in range(1, MAX_STEPS + 1):
        found = losses((total + answers) / step) @ row_weights
        place = int(found.argmin())
        total, counts, since = total + answers[place], counts + (np.arange(len(counts)) == place), since + 1
        if found[place] < best:
            best, best_counts, since = float(found[place]), counts, 0
        if since >= PATIENCE:
            break
    shares: NDArray[np.float64] = best_counts / best_counts.sum()
    return shares


def is_better(one: Predictions, other: Predictions, *, objective: Metric) -> bool:
    """Whether `one` is better than `other` by the objective, or as good and better by `proper_metric`."""
    return _score(one, objective) < _score(other, objective)


def is_surely_no_worse(one: Predictions, other: Predictions, *, objective: Metric) -> bool:
    """Whether `one` is better than `other` by `proper_metric`, and by the objective worse by chance at most.

    By chance: on fewer than `CLEARLY` of the bootstrap samples of the rows.
    """
    proper = proper_metric(one)
    if objective.needs is Needs.LABELS or proper.value(one) >= proper.value(other):
        return False
    rng, worse = np.random.default_rng(0), 0
    # Rows that weigh nothing say nothing, and a sample of them alone would have no value at all.
    counted = np.flatnonzero(one.row_weights)
    for _ in range(MAX_SAMPLES):
        rows = counted[rng.integers(0, len(counted), len(counted))]
        losses = [objective.to_loss(objective.value(part.take(rows))) for part in (one, other)]
        worse += losses[0] > losses[1]
    return worse < CLEARLY * MAX_SAMPLES


def proper_metric(predictions: Predictions) -> Metric:
    """The metric that few rows tell most surely of: log loss, RMSE, or the pinball loss of quantiles."""
    if predictions.quantiles is not None:
        return METRICS["pinball"]
    return METRICS["rmse" if predictions.task is Task.REGRESSION else "log_loss"]


def without_last(weights: Mapping[int, float], *, keep: int) -> dict[int, float]:
    """The first `keep` of the weights, brought to a sum of 1 again."""
    kept = dict(list(weights.items())[:keep])
    total = sum(kept.values())
    return {trial: weight / total for trial, weight in kept.items()}


def _shares(counts: Mapping[int, int]) -> dict[int, float]:
    total = sum(counts.values())
    # Among equals the one that was added first comes first.
    return {trial: count / total for trial, count in sorted(counts.items(), key=lambda item: -item[1])}


def _thinned(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates on as many rows as `MAX_CELLS` allows, drawn alike for all."""
    first = candidates[0].predictions
    most = MAX_CELLS // max(1, first.num_classes)
    if first.num_rows <= most:
        return list(candidates)
    counted = np.flatnonzero(first.row_weights)
    rows = np.sort(np.random.default_rng(0).permutation(counted)[: max(most, 2_000)])
    return [dataclasses.replace(one, predictions=one.predictions.take(rows)) for one in candidates]


def _uncorrelated(ranked: Sequence[Candidate]) -> tuple[list[Candidate], list[int]]:
    """Those whose errors are not those of a better one, and the trials that were left out.

    Errors, not answers: two good regressions agree on what is true, and say nothing about each other by it.
    """
    kept: list[Candidate] = []
    directions: list[NDArray[np.float64]] = []
    left_out: list[int] = []
    for one in ranked:
        error = _errors(one.predictions)
        # Of each level by itself: that low quantiles lie below high ones says nothing of a candidate.
        centred = (error - error.mean(axis=0)).reshape(-1)
        length = float(np.linalg.norm(centred))
        direction = centred / length if length > 0 else centred
        if any(float(direction @ other) > MAX_CORRELATION for other in directions):
            left_out.append(one.trial)
            continue
        kept.append(one)
        directions.append(direction)
    return kept, left_out


def _errors(predictions: Predictions) -> NDArray[np.float64]:
    if predictions.task is Task.REGRESSION:
        return _residuals(predictions)
    errors = _probabilities(predictions).copy()
    errors[np.arange(len(errors)), predictions.y.astype(np.intp)] -= 1.0
    # With two classes the second column says what the first does.
    return errors[:, 1] if errors.shape[1] == 2 else errors.reshape(-1)


def _residuals(predictions: Predictions) -> NDArray[np.float64]:
    """What is found less what is true, ``(num_rows,)``, or ``(num_rows, num_levels)`` of quantiles."""
    y = predictions.y.astype(np.float64)
    if predictions.quantiles is not None:
        return predictions.quantiles.astype(np.float64) - y[:, np.newaxis]
    return np.asarray(predictions.values, np.float64) - y


def _mean_with(total: NDArray[np.float64] | None, one: Candidate, step: int) -> Predictions:
    answers = _answers(one) if total is None else (total + _answers(one)) / step
    if one.predictions.quantiles is not None:
        middle = int(np.argmin(np.abs(np.asarray(one.predictions.levels) - 0.5)))
        return dataclasses.replace(one.predictions, values=answers[:, middle], quantiles=answers)
    if one.predictions.task is Task.REGRESSION:
        return dataclasses.replace(one.predictions, values=answers)
    labels = (answers * np.asarray(one.class_weights) if one.class_weights else answers).argmax(axis=1)
    return dataclasses.replace(one.predictions, probabilities=answers, labels=labels)


def _named_answers(one: Candidate) -> dict[str, NDArray[Any]]:
    found = {name: getattr(one.predictions, name) for name in ("probabilities", "values", "quantiles")}
    return {name: array for name, array in found.items() if array is not None}


def _answers(one: Candidate) -> NDArray[np.float64]:
    """What is averaged: the probabilities, the values, or the quantiles where there are any."""
    found = _named_answers(one)
    return np.asarray(found.get("quantiles", found.get("values", found.get("probabilities"))), np.float64)


def _probabilities(predictions: Predictions) -> NDArray[np.float64]:
    return np.asarray(predictions.probabilities, np.float64)


def _score(predictions: Predictions, objective: Metric) -> tuple[float, float]:
    """Lower is better."""
    metrics = (objective, proper_metric(predictions))
    losses = (metric.to_loss(metric.value(predictions)) for metric in metrics)
    first, second = (loss if math.isfinite(loss) else math.inf for loss in losses)
    return first, second
