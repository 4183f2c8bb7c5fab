"""Racing over the folds of a cross-validation: a configuration leaves as soon as it is unlikely to become the best.

The idea is that of Maron and Moore, "Hoeffding Races" (NIPS 1993), and of F-Race (Birattari et al., GECCO 2002):
candidates are compared on the same folds, block by block. Departures: a newcomer races against the best trial so far
rather than against a field that starts together, and the noise of the comparison is read from the finished trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from app.search.trial import Completed, Trial

MIN_FINISHED = 4
"""Trials with all folds before one may leave: fewer say nothing of the noise."""

MARGIN = 1.5
"""Standard deviations by which a trial may be behind the best; about 1 in 15 better ones would leave at each fold."""


def leave_limits(trials: Iterable[Trial], *, num_folds: int) -> tuple[float, ...]:
    """The mean losses above which a trial leaves after its first, second ... last fold but one; () for not yet.

    Whoever is behind the best trial on the first folds may still win on the others. How often is read from the better
    half of the finished trials: how far each moved against the best between those folds and all folds.

    Args:
        trials: those to race against; of these the completed ones with all folds count.
        num_folds: folds of a whole trial; >= 1.
    """
    whole = list(range(1, num_folds + 1))
    done = [trial for trial in trials if isinstance(trial.outcome, Completed)]
    finished = [trial for trial in done if [at for at, _ in trial.curve] == whole]
    if len(finished) < MIN_FINISHED:
        return ()
    # Bad configurations differ wildly from fold to fold and would hide how alike the good ones are.
    finished.sort(key=lambda trial: (trial.curve[-1][1], trial.number))
    best, *rivals = finished[: max(MIN_FINISHED, -(-len(finished) // 2))]
    limits = []
    for fold in range(num_folds - 1):
        moves = [
            (rival.curve[-1][1] - best.curve[-1][1]) - (rival.curve[fold][1] - best.curve[fold][1]) for rival in rivals
        ]
        noise = math.sqrt(sum(move * move for move in moves) / len(moves))
        limits.append(best.curve[fold][1] + MARGIN * noise)
    return tuple(limits)
