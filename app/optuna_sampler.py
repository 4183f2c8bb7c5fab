"""Optuna's samplers as samplers of this search: `--algorithm optuna:TPESampler`, `hyperband+optuna:RandomSampler`.

Needs the extra `optuna`. A suggestion depends on the seed and the history alone, as with all samplers here: the study
is rebuilt from the history each time. Samplers that look at nothing but trials get them as they are; those that keep
notes about their own suggestions (generations, covariances) are asked again for every trial, so that they take the same
notes, and are told what really ran.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Collection, Hashable
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from app.search.sampler import Sampler, Shared, UnitRows, draw_new
from app.search.space import Boolean, Categorical, Configuration, Float, Int, Parameter, Scale, Space, Value
from app.search.trial import Completed, Failed, History, Trial

if TYPE_CHECKING:
    from app.search.algorithm import Recipe

_LOOKS_AT_TRIALS_ONLY = ("GPSampler", "RandomSampler", "TPESampler")
_TAKES_NOTES = ("CmaEsSampler", "NSGAIIISampler", "NSGAIISampler", "QMCSampler")
SAMPLER_NAMES = (*_LOOKS_AT_TRIALS_ONLY, *_TAKES_NOTES)
"""Samplers that need nothing but a seed; for its grid and brute-force samplers take the algorithm `grid`."""

_FURTHER_LIBRARIES = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}

_NUM_ASKS = 10  # tries before a configuration that nobody tried is drawn at random


def sampler_maker(name: str) -> Callable[[Recipe], Sampler]:
    """The function that makes the sampler called `name` of Optuna for a recipe.

    Raises:
        ValueError: Optuna, or a library that this sampler needs, is missing (the message says what to install), or
            there is no such sampler (the nearest is offered).
    """
    if name not in SAMPLER_NAMES:
        near = get_close_matches(name, SAMPLER_NAMES, n=1, cutoff=0.4)
        hint = f"did you mean 'optuna:{near[0]}'?" if near else f"expected one of {', '.join(sorted(SAMPLER_NAMES))}."
        raise ValueError(f"There is no algorithm 'optuna:{name}'; {hint}")
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(f"The algorithm 'optuna:{name}' needs Optuna; install it with: pip install 'tamiz[optuna]'")
    library = _FURTHER_LIBRARIES.get(name)
    if library is not None and importlib.util.find_spec(library) is None:
        raise ValueError(f"The algorithm 'optuna:{name}' needs {library} too; install it with: pip install {library}")
    return lambda recipe: OptunaSampler(recipe.space, name=name, seed=recipe.seed)


@final
class OptunaSampler(Sampler):
    """One of Optuna's samplers; it never repeats a configuration.

    Args:
        space: what may be drawn.
        name: one of `SAMPLER_NAMES`.
        seed: >= 0; samplers that look at trials only are seeded anew for each suggestion.
    """

    def __init__(self, space: Space, *, name: str, seed: int) -> None:
        self.space = space
        self._name = name
        self._seed = seed
        self._rows = UnitRows(space)

    def sample(
        self, history: History, num: int, rng: np.random.Generator, *, alike: Collection[str] = ()
    ) -> list[Configuration]:
        """See `Sampler.sample`; the defaults come first."""
        seen: set[Hashable] = {*self._rows.keys(history)}
        shared = Shared(self.space, alike)
        configurations: list[Configuration] = []
        study: Any = None
        while len(configurations) < num:
            configuration = None
            if not history and not configurations:
                configuration = self.space.default()
            elif self._anything_left(seen):
                study = self._study(history, rng) if study is None else study
                configuration = self._asked(study, seen, shared)
            configuration = configuration or draw_new(self.space, seen, rng, shared)
            if configuration is None:
                break
            row = self.space.units(configuration)
            shared.learn(row)
            seen.add(self.space.keys(row[None, :])[0])
            configurations.append(configuration)
        return configurations

    def _anything_left(self, seen: Collection[Hashable]) -> bool:
        count = self.space.num_configurations
        return count is None or len(seen) < count

    def _asked(self, study: Any, seen: Collection[Hashable], shared: Shared) -> Configuration | None:
        """A configuration that nobody tried; None when the sampler repeats itself."""
        for _ in range(_NUM_ASKS):
            trial = _quietly(study.ask)
            units = self.space.units(_quietly(partial(self._suggested, trial)))
            row = shared.imposed(units[None, :])[0] if shared else units
            if self.space.keys(row[None, :])[0] not in seen:
                return self.space.from_units(row)
        return None

    def _suggested(self, trial: Any) -> Configuration:
        """The values that Optuna suggests for the parameters that exist, parents first."""
        values: dict[str, Value] = {}
        for parameter in self.space.parameters:
            if self.space.is_active(parameter.name, values):
                values[parameter.name] = _from_optuna(parameter, _suggest(trial, parameter))
        return values

    def _study(self, history: History, rng: np.random.Generator) -> Any:
        optuna = importlib.import_module("optuna")
        takes_notes = self._name in _TAKES_NOTES
        seed = self._seed if takes_notes else int(rng.integers(2**32))
        sampler = _quietly(lambda: getattr(optuna.samplers, self._name)(seed=seed))
        study = _quietly(lambda: optuna.create_study(sampler=sampler, direction="minimize"))
        for trial in history.values():
            if takes_notes:
                self._replay(study, trial)
            else:
                study.add_trial(self._frozen(trial))
        return study

    def _replay(self, study: Any, trial: Trial) -> None:
        study.enqueue_trial(self._to_optuna(trial.hyperparameters))
        asked = _quietly(study.ask)
        _quietly(lambda: self._suggested(asked))
        state, value = _state(trial)
        if state.is_finished():
            _quietly(lambda: study.tell(asked, value, state=state))

    def _frozen(self, trial: Trial) -> Any:
        optuna = importlib.import_module("optuna")
        state, value = _state(trial)
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params=self._to_optuna(trial.hyperparameters),
            distributions={
                parameter.name: _distribution(parameter)
                for parameter in self.space.parameters
                if self.space.is_active(parameter.name, trial.hyperparameters)
            },
            intermediate_values=dict(trial.curve) if state.name == "PRUNED" else {},
        )

    def _to_optuna(self, configuration: Configuration) -> dict[str, Any]:
        """Values as Optuna knows them; what has no value, because the space has grown since, takes its default."""
        return {
            parameter.name: _as_optuna(parameter, configuration.get(parameter.name, parameter.fallback))
            for parameter in self.space.parameters
            if self.space.is_active(parameter.name, configuration)
        }


def _state(trial: Trial) -> tuple[Any, float | None]:
    """Optuna's state of a trial and its value. A paused trial is a pruned one: Optuna compares those by their steps."""
    states = importlib.import_module("optuna").trial.TrialState
    if trial.outcome is None:
        return states.RUNNING, None
    if isinstance(trial.outcome, Failed) or trial.loss is None:
        return states.FAIL, None
    if isinstance(trial.outcome, Completed):
        return states.COMPLETE, trial.outcome.value
    return states.PRUNED, trial.loss


def _is_index(parameter: Parameter) -> bool:
    """Whether Optuna has no such range, so that it gets the number of the value instead."""
    match parameter:
        case Float():
            return parameter.step is not None
        case Int():
            return parameter.scale is Scale.LOG and parameter.step > 1
        case Categorical():
            return parameter.ordered
    return False


def _distribution(parameter: Parameter) -> Any:
    distributions = importlib.import_module("optuna").distributions
    if _is_index(parameter):
        return distributions.IntDistribution(0, (parameter.num_values or 1) - 1)
    match parameter:
        case Float():
            return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.scale is Scale.LOG)
        case Int():
            high = parameter.low + (parameter.num_values - 1) * parameter.step
            if parameter.scale is Scale.LOG:
                return distributions.IntDistribution(parameter.low, parameter.high, log=True)
            return distributions.IntDistribution(parameter.low, high, step=parameter.step)
        case Categorical():
            # By number: Optuna would take True and 1 for one choice.
            return distributions.CategoricalDistribution(tuple(range(parameter.num_values)))
        case Boolean():
            return distributions.CategoricalDistribution((0, 1))


def _suggest(trial: Any, parameter: Parameter) -> Any:
    distribution = _distribution(parameter)
    if isinstance(parameter, Categorical | Boolean) and not _is_index(parameter):
        return trial.suggest_categorical(parameter.name, distribution.choices)
    if isinstance(parameter, Float) and not _is_index(parameter):
        return trial.suggest_float(parameter.name, distribution.low, distribution.high, log=distribution.log)
    return trial.suggest_int(
        parameter.name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _as_optuna(parameter: Parameter, value: Value) -> Any:
    if _is_index(parameter) or isinstance(parameter, Categorical | Boolean):
        return math.floor(parameter.unit_of(value) * (parameter.num_values or 1))
    return value


def _from_optuna(parameter: Parameter, suggested: Any) -> Value:
    if _is_index(parameter) or isinstance(parameter, Categorical | Boolean):
        return parameter.nth(int(suggested))
    return cast(Value, suggested)


def _quietly(call: Callable[[], Any]) -> Any:
    """The call's answer without Optuna's warnings about its own experiments and about conditional spaces."""
    logging = importlib.import_module("optuna").logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    finally:
        logging.set_verbosity(before)


__all__ = ["SAMPLER_NAMES", "OptunaSampler", "sampler_maker"]
