"""An algorithm: a sampler under a scheduler, over a history of facts.

Law: a suggestion depends on the recipe (name, space, seed, budgets) and on the facts so far, on nothing else.
Randomness comes from a generator keyed by the seed and the number of trials started, so there is no random state to
save: replaying the facts continues the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import cast, final

import numpy as np

from app.search.choice import Choice, choose
from app.search.curve_stopping import CurveStopping
from app.search.facts_json import fact_from_json, fact_to_json
from app.search.fold_racing import leave_limits
from app.search.full_budget import FullBudget
from app.search.grid import GridSampler
from app.search.hyperband import Hyperband
from app.search.limits import Limit, is_feasible
from app.search.objectives import FrontScheduler, Goals, ScalarisingSampler
from app.search.observations import observe
from app.search.sampler import Sampler
from app.search.scheduler import Scheduler
from app.search.space import Configuration, Parameter, Space
from app.search.successive_halving import FULL_SHARE, SuccessiveHalving
from app.search.trial import Fact, History, Resource, Suggestion, Trial
from app.search.warm_start import WishesFirst, filled

__all__ = [
    "ALGORITHMS",
    "SAMPLERS",
    "SCHEDULERS",
    "Algorithm",
    "Choice",
    "Recipe",
    "check_algorithm_name",
    "choose",
    "create",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything an algorithm is made from.

    Args:
        name: a key of `ALGORITHMS`, or "scheduler+sampler" such as "hyperband+random".
        space: what may be searched.
        seed: >= 0; equal seeds give equal searches.
        max_epochs: full budget of a trial in epochs, or in folds; >= 1.
        eta: Hyperband keeps one in `eta` trials at each rung; >= 2.
        max_trials: no more trials than this; None for no limit.
        resource: what budgets count.
        objectives: measures to be minimised beside the loss; `Algorithm.front` is then of interest.
        limits: what a trial must keep to be recommended.
        wishes: configurations to be tried before the sampler is asked, in this order.

    Raises:
        ValueError: an unknown name (the nearest is offered), or a number out of its range.
    """

    name: str
    space: Space
    seed: int
    max_epochs: int
    eta: int = 3
    max_trials: int | None = None
    resource: Resource = Resource.EPOCHS
    objectives: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    wishes: tuple[Configuration, ...] = ()

    def __post_init__(self) -> None:
        _composition(self.name)
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "limits", tuple(self.limits))
        object.__setattr__(self, "wishes", tuple(filled(wish, space=self.space) for wish in self.wishes))
        for field, least in (("seed", 0), ("max_epochs", 1), ("eta", 2), ("max_trials", 1)):
            number = getattr(self, field)
            if number is None and field == "max_trials":
                continue
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{field} is {number!r}; expected a whole number of at least {least}.")


# Importing scipy.stats costs half a second, so only a search that starts pays for it, not everyone who needs a Space.


def _random_sampler(recipe: Recipe) -> Sampler:
    from app.search.random import RandomSampler

    return RandomSampler(recipe.space, seed=recipe.seed)


def _gaussian_process_sampler(recipe: Recipe) -> Sampler:
    from app.search.gaussian_process import GaussianProcessSampler

    return GaussianProcessSampler(recipe.space, seed=recipe.seed)


def _density_ratio_sampler(recipe: Recipe) -> Sampler:
    from app.search.density_ratio import DensityRatioSampler

    return DensityRatioSampler(recipe.space, seed=recipe.seed)


def _evolution_sampler(recipe: Recipe) -> Sampler:
    from app.search.evolution import EvolutionSampler

    return EvolutionSampler(recipe.space, seed=recipe.seed)


SAMPLERS: dict[str, Callable[[Recipe], Sampler]] = {
    "random": _random_sampler,
    "grid": lambda recipe: GridSampler(recipe.space, max_trials=recipe.max_trials),
    "bayesian": _gaussian_process_sampler,
    "tpe": _density_ratio_sampler,
    "evolution": _evolution_sampler,
}

# Samplers that learn, and the number of trials where their random start is over.
LEARNING = {"bayesian": 8, "tpe": 11, "evolution": 15}


def _successive_halving(recipe: Recipe) -> Scheduler:
    least = LEARNING.get(_composition(recipe.name)[1])
    return SuccessiveHalving(
        max_epochs=recipe.max_epochs,
        eta=recipe.eta,
        max_trials=recipe.max_trials,
        full_share=0.0 if least is None else FULL_SHARE,
        least_shown=least or 1,
    )


SCHEDULERS: dict[str, Callable[[Recipe], Scheduler]] = {
    "full": lambda recipe: FullBudget(max_epochs=recipe.max_epochs, max_trials=recipe.max_trials),
    "hyperband": lambda recipe: Hyperband(max_epochs=recipe.max_epochs, eta=recipe.eta, max_trials=recipe.max_trials),
    "asha": _successive_halving,
}

# name -> (scheduler, sampler)
ALGORITHMS: dict[str, tuple[str, str]] = {
    "random": ("full", "random"),
    "grid": ("full", "grid"),
    "bayesian": ("full", "bayesian"),
    "tpe": ("full", "tpe"),
    "evolution": ("full", "evolution"),
    # Evolution, after what a supernet ranked first, which is wished for.
    "one-shot": ("full", "evolution"),
    "hyperband": ("hyperband", "bayesian"),
    "bohb": ("hyperband", "tpe"),
    "asha": ("asha", "bayesian"),
}


# prefix -> "module:function", which makes of the name after the colon a function like those of `SAMPLERS`. What is
# named here is imported when it is asked for: it needs libraries that the search itself must not know.
SAMPLER_PLUGS: dict[str, str] = {
    "optuna": "app.optuna_sampler:sampler_maker",
}


@final
class Algorithm:
    """Proposes trials and learns from what they report; see the law above."""

    def __init__(self, recipe: Recipe, *, history: History | None = None) -> None:
        scheduler, sampler = _composition(recipe.name)
        self.recipe = recipe
        self._sampler = _sampler_maker(sampler)(recipe)
        self._scheduler = SCHEDULERS[scheduler](recipe)
        self._stopping = CurveStopping(max_epochs=recipe.max_epochs)
        self._goals = Goals(objectives=recipe.objectives, limits=recipe.limits)
        if self._goals:
            self._sampler = ScalarisingSampler(self._sampler, goals=self._goals)
            self._scheduler = FrontScheduler(self._scheduler, goals=self._goals)
        if recipe.wishes:
            self._sampler = WishesFirst(self._sampler, wishes=recipe.wishes)
        self._history = History(resource=recipe.resource) if history is None else history
        # `suggest` is pure, so its last answer can be kept until the next fact.
        self._answers: dict[tuple[int, frozenset[str]], tuple[Suggestion, ...]] = {}

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.recipe.space

    @property
    def scheduler(self) -> Scheduler:
        """Who trains next, and how long."""
        return self._scheduler

    @property
    def history(self) -> History:
        """All trials so far."""
        return self._history

    def suggest(self, num: int = 1, *, alike: Collection[str] = ()) -> list[Suggestion]:
        """Up to `num` suggestions; it changes nothing, so asking again without new facts gives the same answer.

        Tell `Started(suggestion)` for those that are taken up. [] means that running trials must end first or, when
        none runs, that the search is exhausted. New configurations share the values of the parameters named in `alike`
        where these are active, so that they can train in one graph; trials that are resumed keep theirs.
        """
        if num < 1:
            raise ValueError(f"{num} suggestions asked for; expected at least 1.")
        question = (num, frozenset(alike))
        if question not in self._answers:
            rng = np.random.default_rng([self.recipe.seed, len(self._history)])
            answer = self._scheduler.next(self._history, self._sampler, num, rng, alike=question[1])
            self._answers[question] = tuple(answer)
        return [replace(s, hyperparameters=dict(s.hyperparameters)) for s in self._answers[question]]

    def update(self, facts: Iterable[Fact]) -> None:
        """Learn facts, in their order; raises ValueError, learning nothing, when one contradicts the history."""
        self._history = self._history.applied(facts)
        self._answers.clear()

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing runs and nothing is left to suggest."""
        return not self._history.running and not self.suggest(1)

    def hopeless(self, trial: int, *, is_rival: Callable[[Trial], bool] | None = None) -> str:
        """Why the running trial of this number should be pruned now, by its learning curve; "" when it should not.

        Never with several objectives: a trial with a bad loss may be the best in another. Where there are limits, only
        those that keep them are rivals. Never in folds, whose means are no learning curve: see `leave_limits`.

        Args:
            trial: its number.
            is_rival: which other trials show how this one may go on; None for all.
        """
        if self.recipe.objectives or self.recipe.resource is Resource.FOLDS:
            return ""
        history, limits = self._history, self.recipe.limits
        if limits:
            kept = [other for other in history.values() if other.number == trial or is_feasible(other, limits)]
            history = History(kept)
        return self._stopping.reason(history, trial, is_rival=is_rival)

    def leave_limits(self) -> tuple[float, ...]:
        """The mean losses above which a trial that starts now leaves after its first, second ... fold; () for never.

        Nobody leaves where several objectives count; where there are limits, the race is against those that keep them.
        """
        if self.recipe.resource is not Resource.FOLDS or self.recipe.objectives:
            return ()
        rivals = [trial for trial in self._history.completed if is_feasible(trial, self.recipe.limits)]
        return leave_limits(rivals, num_folds=self.recipe.max_epochs)

    def recommend(self) -> int | None:
        """The number of the best trial so far; None when no trial has a finite loss.

        The best has the lowest expected loss, which is not always the lowest reported one (`recommendation.ranking`).
        It keeps all limits; see `Goals.recommend` for when none does.
        """
        from app.search.recommendation import ranking

        ranked = ranking(self.space, self._history)
        feasible = (number for number in ranked if is_feasible(self._history[number], self.recipe.limits))
        return next(feasible, self._goals.recommend(self._history))

    @property
    def tells_luck_from_merit(self) -> bool:
        """Whether there are losses enough for `recommend` to prefer another trial than the one with the lowest."""
        from app.search.recommendation import FEWEST

        return observe(self._history.values()).num_known >= FEWEST

    def front(self) -> list[int]:
        """Numbers of the trials on the Pareto front among those that keep all limits, by rising loss."""
        return self._goals.front(self._history)

    def enqueue(self, configurations: Iterable[Configuration], *, first: bool = False) -> None:
        """Have configurations tried before the sampler is asked; a parameter left out takes its default.

        Args:
            configurations: what is wished for.
            first: before earlier wishes, not after them.

        Raises:
            ValueError: one does not fit the space; the message names the parameter and its range.
        """
        wishes, earlier = tuple(configurations), self.recipe.wishes
        self._remake(replace(self.recipe, wishes=(*wishes, *earlier) if first else (*earlier, *wishes)))

    def grow(self, parameters: Iterable[Parameter]) -> None:
        """Add parameters discovered during the search; earlier trials count as having used their defaults."""
        space = self.space.merged(list(parameters))
        if space != self.space:
            self._remake(replace(self.recipe, space=space))

    def _remake(self, recipe: Recipe) -> None:
        made = Algorithm(recipe, history=self._history)
        self.recipe, self._sampler, self._scheduler = made.recipe, made._sampler, made._scheduler
        self._answers.clear()

    def dump(self) -> dict[str, object]:
        """A JSON object from which `load` makes an algorithm with the same future."""
        recipe = {field: getattr(self.recipe, field) for field in Recipe.__dataclass_fields__}
        recipe["space"] = self.space.to_json()
        recipe["limits"] = [limit.to_json() for limit in self.recipe.limits]
        recipe["wishes"] = [dict(wish) for wish in self.recipe.wishes]
        return {"version": 1, "recipe": recipe, "facts": [fact_to_json(fact) for fact in self._history.facts()]}

    @classmethod
    def load(cls, record: Mapping[str, object]) -> Algorithm:
        """The algorithm written by `dump`; raises ValueError for another version."""
        if record.get("version") != 1:
            raise ValueError(f"An algorithm of version {record.get('version')!r}; this tamiz reads version 1.")
        fields = dict(cast(Mapping[str, object], record["recipe"]))
        fields["space"] = Space.from_json(cast(Mapping[str, object], fields["space"]))
        fields["resource"] = Resource(cast(str, fields.get("resource", Resource.EPOCHS)))
        limits = cast(list[Mapping[str, object]], fields.get("limits", []))
        fields["limits"] = tuple(Limit.from_json(limit) for limit in limits)
        fields["wishes"] = tuple(cast(list[Configuration], fields.get("wishes", [])))
        algorithm = cls(Recipe(**fields))  # type: ignore[arg-type]
        algorithm.update(fact_from_json(item) for item in cast(list[Mapping[str, object]], record["facts"]))
        return algorithm


def create(
    name: str, *, space: Space, seed: int, max_epochs: int, eta: int = 3, max_trials: int | None = None
) -> Algorithm:
    """The algorithm called `name`; arguments and errors as in `Recipe`."""
    return Algorithm(Recipe(name=name, space=space, seed=seed, max_epochs=max_epochs, eta=eta, max_trials=max_trials))


def check_algorithm_name(name: str) -> str:
    """The name itself; raises ValueError, offering the nearest, when there is no such algorithm."""
    _composition(name)
    return name


def _composition(name: str) -> tuple[str, str]:
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if name.partition(":")[0] in SAMPLER_PLUGS:
        name = f"full+{name}"
    scheduler, plus, sampler = name.partition("+")
    if plus and scheduler in SCHEDULERS and sampler.partition(":")[0] in SAMPLER_PLUGS:
        _sampler_maker(sampler)
        return scheduler, sampler
    if plus and scheduler in SCHEDULERS and sampler in SAMPLERS:
        return scheduler, sampler
    near = get_close_matches(name, [*ALGORITHMS, *_compositions()], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(ALGORITHMS)}."
    raise ValueError(f"There is no algorithm {name!r}; {hint}")


def _compositions() -> list[str]:
    return [f"{scheduler}+{sampler}" for scheduler in SCHEDULERS for sampler in SAMPLERS]


def _sampler_maker(name: str) -> Callable[[Recipe], Sampler]:
    """The function that makes the sampler called `name`; a plug raises ValueError when it does not know the name."""
    prefix, _, rest = name.partition(":")
    if prefix not in SAMPLER_PLUGS:
        return SAMPLERS[name]
    module, _, function = SAMPLER_PLUGS[prefix].partition(":")
    maker: Callable[[Recipe], Sampler] = getattr(import_module(module), function)(rest)
    return maker
