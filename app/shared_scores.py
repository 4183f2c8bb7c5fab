"""What shared weights said of cells, beside what these came to when each was trained by itself; no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.evaluation.metrics import METRICS
from app.search.rank_agreement import LEAST, RankAgreement, rank_agreement
from app.search.trial import Completed, Pruned, Trial
from app.search_progress import Progress

ONE_SHOT = "one-shot"
"""Name of the algorithm that ranks cells by shared weights first."""

STAGE = "supernet"
"""What the journal calls the training of the shared weights and the ranking."""

LEAST_AGREEMENT = 0.5
"""Spearman's correlation below which shared weights are said to tell little."""

FEW = 6
"""Cells below which a correlation is not to be trusted whatever it is."""


def shared_values(progress: Progress) -> dict[int, float]:
    """Returns the value of the objective that shared weights gave each trial's cell; trials of other cells are absent.

    A trial counts where it was trained as the supernet was, all its other hyperparameters being the same.
    """
    stage = progress.stages.get(STAGE)
    if stage is None:
        return {}
    known = {_key(cell["hyperparameters"]): float(cell["value"]) for cell in stage["cells"]}
    return {
        trial.number: known[_key(trial.hyperparameters)]
        for trial in progress.history.values()
        if _key(trial.hyperparameters) in known
    }


def agreement_of(progress: Progress) -> RankAgreement | None:
    """Returns how far shared weights order cells as training each by itself does; None where that cannot be told."""
    pairs = _pairs(progress)
    return rank_agreement([one for one, _ in pairs], [other for _, other in pairs])


def agreement_told(agreement: RankAgreement) -> str:
    """Returns the correlations in a sentence."""
    return (
        f"shared weights and training alone rank {agreement.number} cells with a correlation of "
        f"{agreement.spearman:.2f} (Spearman; Kendall {agreement.kendall:.2f})"
    )


def ranking_warning(progress: Progress) -> str:
    """Returns why a ranking by shared weights is doubtful; nothing where there was none, or where it was right."""
    stage = progress.stages.get(STAGE)
    if stage is None:
        return ""
    agreement, number = agreement_of(progress), len(_pairs(progress))
    if agreement is not None:
        return agreement_warning(agreement)
    alone = f"{number} of them were trained by themselves to the end"
    ranked = f"shared weights ranked {stage['ranked']:,} cells, and {alone}"
    if number < LEAST:
        return (
            f"{ranked}: too few to tell whether the ranking is right, which takes at least {FEW}; give the search more "
            f"--time"
        )
    return (
        f"{ranked}, which one of the two gave the same value: whether the ranking is right cannot be told; search with "
        f"--algorithm evolution"
    )


def agreement_warning(agreement: RankAgreement) -> str:
    """Returns what to make of a low correlation, or of one of few cells; nothing where it is high enough."""
    if agreement.spearman < LEAST_AGREEMENT:
        return (
            f"{agreement_told(agreement)}: below {LEAST_AGREEMENT} the ranking by shared weights says little; give the "
            f"search more --time, or search with --algorithm evolution"
        )
    if agreement.number < FEW:
        return f"{agreement_told(agreement)}, but {agreement.number} cells are too few to trust that"
    return ""


def scalars_of_agreement(agreement: RankAgreement | None) -> Mapping[str, float]:
    """Returns the correlations as TensorBoard has them: tag -> value."""
    if agreement is None:
        return {}
    return {
        "one_shot/spearman": agreement.spearman,
        "one_shot/kendall": agreement.kendall,
        "one_shot/cells": float(agreement.number),
    }


def chosen_cells(cells: Sequence[Mapping[str, Any]], *, best: int, spread: int) -> list[int]:
    """Returns the places of cells to be trained by themselves: the best, and between them some of all ranks.

    Without cells that are not among the best, a correlation would be one of noise.

    Args:
        cells: The ranking, best first; ``drawn`` says which were drawn at random.
        best: How many of the best.
        spread: How many of those that were drawn, evenly over their ranks, the worst among them left out.
    """
    drawn = [place for place, cell in enumerate(cells) if cell["drawn"] and place >= best]
    step = len(drawn) / (spread + 1)
    others = list(dict.fromkeys(drawn[int((number + 1) * step)] for number in range(spread))) if drawn else []
    # The middle of them first: a short search then has at least one of another rank.
    others.sort(key=lambda place: abs(place - drawn[len(drawn) // 2]))
    first = list(range(min(best, len(cells))))
    paired = [place for pair in zip(first, others, strict=False) for place in pair]
    return paired + first[len(others) :] + others[len(first) :]


def _pairs(progress: Progress) -> list[tuple[float, float]]:
    """Returns the loss by shared weights and the loss alone of every cell that was trained to its end."""
    if progress.search is None:
        return []
    shared = shared_values(progress)
    metric = METRICS[progress.search.objective]
    return [
        (metric.to_loss(shared[trial.number]), trial.loss)
        for trial in progress.history.values()
        if trial.number in shared and _is_judged(trial, progress) and trial.loss is not None
    ]


def _is_judged(trial: Trial, progress: Progress) -> bool:
    """Whether a trial was trained to its end, or left because it was worse than others, and not for want of time."""
    if isinstance(trial.outcome, Completed):
        return True
    return isinstance(trial.outcome, Pruned) and trial.number in progress.stopped


def _key(hyperparameters: Mapping[str, Any]) -> str:
    return json.dumps(dict(hyperparameters), sort_keys=True)
