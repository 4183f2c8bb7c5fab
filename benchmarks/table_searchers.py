"""The engines that `search_tables` compares, each asked for a configuration and told its loss.

Every peer is given numeric values as an ordered parameter, which is the better of the ways it has; Optuna also as the
categories that a list of values is to it. A peer recommends the configuration with the least loss, as its own
`best_trial`, `get_best_trials` or incumbent does.
"""

from __future__ import annotations

import abc
import tempfile
from typing import Any, final

import numpy as np
from published_tables import Table

from app.search import Algorithm, Completed, Ended, Started, Suggestion, create
from app.search.space import Configuration


class Searcher(abc.ABC):
    """Proposes configurations of a table."""

    @abc.abstractmethod
    def ask(self, num: int) -> list[Configuration]:
        """Returns up to `num` configurations to train in parallel."""

    @abc.abstractmethod
    def tell(self, losses: list[float]) -> None:
        """Learns the losses of the configurations asked for last."""

    @abc.abstractmethod
    def recommend(self) -> Configuration:
        """Returns what it takes for the best so far."""


class _Peer(Searcher):
    """Remembers the least loss, and proposes one at a time."""

    def __init__(self) -> None:
        self._told: list[tuple[float, Configuration]] = []
        self._asked: list[Configuration] = []

    def ask(self, num: int) -> list[Configuration]:
        """See `Searcher.ask`."""
        self._asked = [self.ask_one() for _ in range(num)]
        return self._asked

    def tell(self, losses: list[float]) -> None:
        """See `Searcher.tell`."""
        for configuration, loss in zip(self._asked, losses, strict=True):
            self._told.append((loss, configuration))
            self.tell_one(loss)

    def recommend(self) -> Configuration:
        """See `Searcher.recommend`."""
        return min(self._told, key=lambda told: told[0])[1]

    @abc.abstractmethod
    def ask_one(self) -> Configuration:
        """Returns the next configuration."""

    @abc.abstractmethod
    def tell_one(self, loss: float) -> None:
        """Learns one loss."""


@final
class Tamiz(Searcher):
    """An algorithm of tamiz.

    Args:
        table: What is searched.
        seed: Seed of the search.
        name: Name of the algorithm.
        alike: Parameters whose values a batch shares.
        by_model: Whether it recommends by its model rather than by the least loss.
    """

    def __init__(
        self, table: Table, *, seed: int, name: str = "bayesian", alike: tuple[str, ...] = (), by_model: bool = True
    ) -> None:
        self._algorithm: Algorithm = create(name, space=table.space, seed=seed, max_epochs=1)
        self._alike = alike
        self._by_model = by_model
        self._asked: list[Suggestion] = []

    def ask(self, num: int) -> list[Configuration]:
        """See `Searcher.ask`."""
        self._asked = self._algorithm.suggest(num, alike=self._alike)
        return [suggestion.hyperparameters for suggestion in self._asked]

    def tell(self, losses: list[float]) -> None:
        """See `Searcher.tell`."""
        for suggestion, loss in zip(self._asked, losses, strict=True):
            self._algorithm.update([Started(suggestion), Ended(suggestion.trial, Completed(loss))])

    def recommend(self) -> Configuration:
        """See `Searcher.recommend`."""
        history = self._algorithm.history
        number = self._algorithm.recommend() if self._by_model else history.best.number  # type: ignore[union-attr]
        return history[number].hyperparameters  # type: ignore[index]


@final
class UniformSearch(_Peer):
    """Uniform random draws."""

    def __init__(self, table: Table, *, seed: int) -> None:
        super().__init__()
        self._table = table
        self._rng = np.random.default_rng([seed, 1])

    def ask_one(self) -> Configuration:
        """See `_Peer.ask_one`."""
        return self._table.space.sample(self._rng)

    def tell_one(self, loss: float) -> None:
        """See `_Peer.tell_one`."""


@final
class OptunaSearch(_Peer):
    """Optuna's TPE, multivariate.

    Args:
        table: What is searched.
        seed: Seed of the search.
        as_categories: Whether numbers are given as categories, too.
    """

    def __init__(self, table: Table, *, seed: int, as_categories: bool = False) -> None:
        super().__init__()
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._table = table
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(multivariate=True, seed=seed))
        self._numbers = {
            name: ordered and not as_categories and name not in table.continuous
            for name, ordered in table.ordered.items()
        }
        self._distributions: dict[str, Any] = {
            name: IntDistribution(0, len(values) - 1) if self._numbers[name] else CategoricalDistribution(values)
            for name, values in table.choices.items()
        }
        self._distributions |= {name: FloatDistribution(0.0, 1.0) for name in table.continuous}
        self._trials: list[Any] = []

    def ask_one(self) -> Configuration:
        """See `_Peer.ask_one`."""
        trial = self._study.ask(self._distributions)
        self._trials.append(trial)
        choices, numbers = self._table.choices, self._numbers
        return {name: choices[name][value] if numbers[name] else value for name, value in trial.params.items()}

    def tell_one(self, loss: float) -> None:
        """See `_Peer.tell_one`."""
        self._study.tell(self._trials.pop(0), loss)


@final
class KerasTunerSearch(_Peer):
    """KerasTuner's Bayesian optimisation; importing it imports TensorFlow."""

    def __init__(self, table: Table, *, seed: int) -> None:
        super().__init__()
        import keras_tuner

        parameters = keras_tuner.HyperParameters()
        for name, values in table.choices.items():
            # The position of a number, since a choice must not mix 1 with 0.5.
            listed = list(range(len(values))) if table.ordered[name] else values
            parameters.Choice(name, listed, ordered=table.ordered[name])
        self._table = table
        self._folder = tempfile.TemporaryDirectory(prefix="keras-tuner-")
        self._oracle = keras_tuner.oracles.BayesianOptimizationOracle(
            objective=keras_tuner.Objective("loss", "min"),
            max_trials=10**6,
            # 0 means random there.
            seed=seed + 1,
            hyperparameters=parameters,
        )
        self._oracle.verbose = 0
        self._oracle._set_project_dir(self._folder.name, "search")
        self._trials: list[Any] = []

    def ask_one(self) -> Configuration:
        """See `_Peer.ask_one`."""
        trial = self._oracle.create_trial("tuner")
        self._trials.append(trial)
        choices, ordered = self._table.choices, self._table.ordered
        chosen = trial.hyperparameters.values
        return {name: choices[name][chosen[name]] if ordered[name] else chosen[name] for name in choices}

    def tell_one(self, loss: float) -> None:
        """See `_Peer.tell_one`."""
        trial = self._trials.pop(0)
        self._oracle.update_trial(trial.trial_id, {"loss": loss})
        trial.status = "COMPLETED"
        self._oracle.end_trial(trial)


@final
class SmacSearch(_Peer):
    """SMAC3's facade for hyperparameter optimisation (random forest)."""

    def __init__(self, table: Table, *, seed: int) -> None:
        super().__init__()
        import ConfigSpace
        import smac

        space = ConfigSpace.ConfigurationSpace(seed=seed)
        for name, values in table.choices.items():
            kind = ConfigSpace.OrdinalHyperparameter if table.ordered[name] else ConfigSpace.CategoricalHyperparameter
            space.add(kind(name, values))
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        scenario = smac.Scenario(space, deterministic=True, n_trials=100, seed=seed, output_directory=self._folder.name)
        self._facade = smac.HyperparameterOptimizationFacade(scenario, _never_called, logging_level=40, overwrite=True)
        self._infos: list[Any] = []

    def ask_one(self) -> Configuration:
        """See `_Peer.ask_one`."""
        info = self._facade.ask()
        self._infos.append(info)
        return {name: _plain(value) for name, value in dict(info.config).items()}

    def tell_one(self, loss: float) -> None:
        """See `_Peer.tell_one`."""
        import smac.runhistory

        self._facade.tell(self._infos.pop(0), smac.runhistory.TrialValue(cost=loss, time=0.0))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _never_called(config: Any, seed: int = 0) -> float:
    # SMAC3 checks the signature, but it is only asked and told.
    raise NotImplementedError(f"asked for {config} with seed {seed}")
