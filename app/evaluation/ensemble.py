"""Which trials answer together, and with what weights: greedy selection with replacement (NumPy only).

Caruana, Niculescu-Mizil, Crew and Ksikes, *Ensemble selection from libraries of models* (ICML 2004): begin with
nothing, add again and again the candidate with which the average is best, take the best of the averages on the way. A
candidate that is added twice weighs twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.evaluation.metrics import METRICS, Metric
from app.evaluation.predictions import Predictions
from app.evaluation.temperature import tempered
from pipelines.schema import Task

MAX_CORRELATION = 0.995
"""Of the errors of two candidates; past it the worse one adds nothing but its cost."""

MAX_STEPS = 30
PATIENCE = 8  # steps without a better average

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
    parts = [{_kind(one): _answers(one)} for one in members]
    combined = combine(parts, weights, temperature=temperature, class_weights=first.class_weights)
    return dataclasses.replace(
        first.predictions,
        probabilities=combined.get("probabilities"),
        labels=None if (ids := combined.get("label_ids")) is None else ids.astype(np.intp),
        values=combined.get("values"),
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
    probability times its weight is largest, as for a single network. The temperature changes no label.

    Args:
        parts: name -> array `(num_rows, ...)`, the same names in each: ``probabilities`` or ``values``.
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

    Ties in the objective, which are many where it counts right answers, are broken by the log loss or the RMSE.

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


def is_better(one: Predictions, other: Predictions, *, objective: Metric) -> bool:
    """Whether `one` is better than `other` by the objective, or as good and better by the log loss or the RMSE."""
    return _score(one, objective) < _score(other, objective)


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
    rows = np.sort(np.random.default_rng(0).permutation(first.num_rows)[: max(most, 2_000)])
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
        centred = error - error.mean()
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
        return _values(predictions) - predictions.y.astype(np.float64)
    errors = _probabilities(predictions).copy()
    errors[np.arange(len(errors)), predictions.y.astype(np.intp)] -= 1.0
    # With two classes the second column says what the first does.
    return errors[:, 1] if errors.shape[1] == 2 else errors.reshape(-1)


def _mean_with(total: NDArray[np.float64] | None, one: Candidate, step: int) -> Predictions:
    answers = _answers(one) if total is None else (total + _answers(one)) / step
    if one.predictions.task is Task.REGRESSION:
        return dataclasses.replace(one.predictions, values=answers)
    labels = (answers * np.asarray(one.class_weights) if one.class_weights else answers).argmax(axis=1)
    return dataclasses.replace(one.predictions, probabilities=answers, labels=labels)


def _kind(one: Candidate) -> str:
    return "values" if one.predictions.task is Task.REGRESSION else "probabilities"


def _answers(one: Candidate) -> NDArray[np.float64]:
    is_regression = one.predictions.task is Task.REGRESSION
    return _values(one.predictions) if is_regression else _probabilities(one.predictions)


def _values(predictions: Predictions) -> NDArray[np.float64]:
    return np.asarray(predictions.values, np.float64)


def _probabilities(predictions: Predictions) -> NDArray[np.float64]:
    return np.asarray(predictions.probabilities, np.float64)


def _score(predictions: Predictions, objective: Metric) -> tuple[float, float]:
    """Lower is better."""
    proper = METRICS["rmse" if predictions.task is Task.REGRESSION else "log_loss"]
    losses = (metric.to_loss(metric.value(predictions)) for metric in (objective, proper))
    first, second = (loss if math.isfinite(loss) else math.inf for loss in losses)
    return first, second
