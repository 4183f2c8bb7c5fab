"""Which algorithm suits a search, and why, in a sentence for the user."""

from __future__ import annotations

from dataclasses import dataclass

from app.search.hyperband import plan
from app.search.space import Space

_FEW_TRIALS = 10  # below this a model has nothing to learn from
_MANY_ROWS = 20_000  # from here on an epoch is dear enough to stop weak trials early
_ENOUGH_EPOCHS = 9  # two promotions with eta 3
_MANY_TRIALS = 1000  # from here on a Gaussian process sees only part of them
_MANY_PARAMETERS = 40  # distances between points say little beyond that
_TRACE_SECONDS = 1.5  # to build a network and trace its graph


@dataclass(frozen=True, slots=True)
class Choice:
    """The name of an algorithm and the reason for it."""

    name: str
    reason: str


def choose(
    *,
    space: Space,
    num_rows: int,
    time_seconds: float | None,
    max_trials: int | None,
    max_epochs: int,
    seconds_per_epoch_guess: float | None = None,
) -> Choice:
    """The algorithm for "auto".

    Args:
        space: what is searched.
        num_rows: training rows.
        time_seconds: wall-clock budget of the search; None for no limit.
        max_trials: limit on trials; None for no limit.
        max_epochs: full budget of a trial in epochs.
        seconds_per_epoch_guess: a measured or guessed epoch; guessed from the rows when None.
    """
    seconds = _epoch_seconds(num_rows) if seconds_per_epoch_guess is None else seconds_per_epoch_guess
    limits = [] if max_trials is None else [max_trials]
    if time_seconds is not None:
        limits.append(int(time_seconds / max(seconds * max_epochs, 1e-9)))
    affordable = min(limits, default=None)
    fits = "the budget has no limit" if affordable is None else f"about {affordable} full trials fit the budget"
    count = space.num_configurations
    if count is not None and (affordable is None or count <= affordable):
        return Choice("grid", f"the space has only {count} configurations and {fits}, so each is tried once.")
    cheaper = _why_cheaper(space, affordable)
    if time_seconds is not None and num_rows > _MANY_ROWS and max_epochs >= _ENOUGH_EPOCHS:
        bracket = _bracket_seconds(max_epochs, seconds)
        if bracket <= time_seconds / 2:
            early = (
                f"with {num_rows:,} rows an epoch is expensive, so weak trials stop early and the best go on to "
                f"{max_epochs} epochs"
            )
            return Choice("bohb", f"{early}; {cheaper}.") if cheaper else Choice("asha", f"{early}.")
        return Choice(
            "bayesian",
            f"halving down to one full trial would take about {bracket:.0f} of {time_seconds:.0f} s, so a model of the "
            "results so far chooses each next trial.",
        )
    if max_trials is not None and max_trials < _FEW_TRIALS:
        return Choice(
            "random",
            f"{max_trials} trials are too few for a model to learn from; they are spread evenly over the space.",
        )
    if cheaper:
        return Choice("tpe", f"{cheaper}.")
    num_parameters = len(space.parameters)
    return Choice(
        "bayesian",
        f"{fits} and the space has {num_parameters} parameter{'s' if num_parameters > 1 else ''}, "
        "so a model of the results so far chooses each next trial.",
    )


def _why_cheaper(space: Space, affordable: int | None) -> str:
    """Why a density ratio suits better than a Gaussian process; nothing when it does not."""
    num_parameters = len(space.parameters)
    num_conditional = sum(bool(parameter.conditions) for parameter in space.parameters)
    if affordable is not None and affordable > _MANY_TRIALS:
        return f"with about {affordable:,} trials, where good and bad ones are dense tells more than a smooth model"
    if num_parameters > _MANY_PARAMETERS:
        return f"{num_parameters} parameters are too many for a smooth model, so each is judged by its own densities"
    if num_parameters >= _MANY_PARAMETERS // 2 and num_conditional > num_parameters / 2:
        return f"{num_conditional} of {num_parameters} parameters are conditional, so densities guide the search"
    return ""


def _bracket_seconds(max_epochs: int, epoch_seconds: float) -> float:
    """Successive halving down to one trial of all epochs, every visit of a rung paying for its graph."""
    bracket = plan(max_epochs=max_epochs)[0]
    return bracket.epochs * epoch_seconds + sum(rung.num_trials for rung in bracket.rungs) * _TRACE_SECONDS


def _epoch_seconds(num_rows: int) -> float:
    """A rough epoch of a small network on two cores: calls cost about 0.05 s, rows about 10 µs each."""
    return 0.05 + 1e-5 * num_rows
