"""The best configuration once more, by a longer schedule, when that is the best use of the time that is left.

Networks of a short search follow schedules that are laid out for a share of all epochs, so that several of them fit
into the time. Where the best of them was still growing better at the end of its schedule, a longer one is worth more
than another configuration: a residual network on 1,800 hard photographs came to an accuracy of 0.56 in 12 epochs, 0.62
in 25 and 0.72 in 50. It is a trial like any other, and wins only if the rows that judge say so.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from app.search.parameters import Categorical
from app.search.space import Configuration
from app.search.trial import Resource
from app.search_progress import Progress
from search_spaces.network_size import schedule_share

ALGORITHMS = ("random", "bayesian", "tpe", "evolution")
"""Those whose trials train to the end of their schedule, and that try whatever they like."""

STILL_BETTER = 2 / 3
"""Of its epochs, after which a network was at its best: before, more of them are no use."""

TIME_SHARE = 0.5
"""Of the time for the search, that the longer schedule may take."""

_MARGIN = 1.1


def longer_schedule(progress: Progress, *, usable: float, whole: float) -> Configuration | None:
    """Returns the best configuration with a longer schedule; None while there is time for something else before.

    Args:
        progress: The trials.
        usable: Seconds that a trial may take that starts now.
        whole: Seconds of the search from its first trial on.
    """
    search, best = progress.search, progress.best
    if search is None or best is None or search.algorithm not in ALGORITHMS or best.resource is not Resource.EPOCHS:
        return None
    schedule = schedule_share(best.hyperparameters)
    seconds = progress.alone_seconds.get(best.number, 0.0)
    if schedule is None or not seconds or progress.best_epoch(best) < STILL_BETTER * best.epochs:
        return None
    name, own = schedule
    costs = _costs(progress, name, own, whole_schedule=_MARGIN * seconds / best.epochs * search.max_epochs)
    wanted = [share for share, seconds in costs.items() if seconds <= TIME_SHARE * whole]
    if not wanted or usable - statistics.median(progress.seconds.values()) >= costs[max(wanted)]:
        return None
    in_time = [share for share in wanted if costs[share] <= usable]
    if not in_time:
        return None
    found = {**best.hyperparameters, name: max(in_time)}
    # One that was wished for is asked for once, whether the search has got to it or ended before.
    known = [*progress.wishes, *(trial.hyperparameters for trial in progress.history.values())]
    return None if found in known else found


def _costs(progress: Progress, name: str, own: float, *, whole_schedule: float) -> Mapping[float, float]:
    """Returns about how many seconds the schedules beyond a share take, by their share of the whole one."""
    parameter = progress.space[name] if progress.space is not None else None
    shares = [float(share) for share in parameter.choices] if isinstance(parameter, Categorical) else []
    return {share: share * whole_schedule for share in shares if share > own}
