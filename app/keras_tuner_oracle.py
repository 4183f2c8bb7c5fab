"""This search engine behind KerasTuner's `Oracle`: code that uses KerasTuner changes one line (imports TensorFlow).

tuner = keras_tuner.Tuner(hypermodel=build, oracle=tamiz.KerasTunerOracle("val_accuracy", max_trials=30))
tuner.search(x, y, validation_data=(x_val, y_val))
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import keras_tuner
from keras_tuner.src.engine import metrics_tracking
from keras_tuner.src.engine import oracle as engine
from keras_tuner.src.engine.trial import TrialStatus

from app.search.algorithm import ALGORITHMS, Algorithm, Recipe, check_algorithm_name
from app.search.space import Space, Value
from app.search.trial import Completed, Ended, Fact, Failed, Started, Suggestion
from app.training.declaration import parameters_of

FIRST_TRIALS = 5
"""When all of the first trials fail, the model or the data is at fault, and the search ends."""


@final
class KerasTunerOracle(keras_tuner.Oracle):
    """Proposes trials to KerasTuner's tuners; everything is decided by the trials so far and the seed.

    What it does that KerasTuner's own oracles do not: a score that is NaN or infinite is a failed trial, whichever way
    is better; no configuration is tried twice; `seed=0` is a seed; a reloaded search goes on as it would have; an
    exception in one worker does not stop the others; failures end the search only when all of the first five failed.
    The model of the results costs milliseconds a trial.

    Every trial trains as long as `Tuner.search` says: a KerasTuner trial cannot be paused, so schedulers that stop and
    resume (`hyperband`, `asha`) are refused; `tamiz search --space module:build` runs the same function under them.

    Args:
        objective: As `keras_tuner.Oracle`: a name, an `Objective`, or a list of them (whose sum is then taken).
        max_trials: Most trials; None for no limit.
        algorithm: `bayesian`, `random`, `grid`, or any other sampler of this engine such as `optuna:TPESampler`.
        hyperparameters: Parameters known in advance.
        allow_new_entries: Whether a build may ask for parameters that are not in `hyperparameters`.
        tune_new_entries: Whether such parameters are searched too; otherwise they keep their defaults.
        seed: >= 0; None takes one at random (it is saved, so a reloaded search has it too).
        max_retries_per_trial: How often a trial that raised or had no finite score is run again.
        max_consecutive_failed_trials: So many failed trials in a row end the search; None: all of the first five do.

    Raises:
        ValueError: An unknown algorithm (the nearest is offered), one that has to pause trials, or a negative seed.
        TypeError, ValueError: As `keras_tuner.Oracle`.

    Example:
        keras_tuner.Tuner(hypermodel=build, oracle=tamiz.KerasTunerOracle("val_loss", max_trials=20, seed=0))
    """

    def __init__(
        self,
        objective: Any = None,
        max_trials: int | None = None,
        *,
        algorithm: str = "bayesian",
        hyperparameters: Any = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        seed: int | None = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int | None = None,
    ) -> None:
        _check_trains_in_one_go(algorithm)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed is {seed!r}; expected a whole number of at least 0, or None.")
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.algorithm = algorithm
        # KerasTuner takes 0 for "no seed".
        self.seed = random.randrange(2**31) if seed is None else seed
        self._seed_state = self.seed
        self._own_lock = threading.RLock()

    # What KerasTuner asks

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial, or that there is none left."""
        del trial_id
        if not self.hyperparameters.space:
            # Nothing is known to search: one build shows whether there is anything.
            return {"status": TrialStatus.STOPPED} if self.trials else {"status": TrialStatus.RUNNING, "values": {}}
        names = {parameter.name: name for parameter, name in parameters_of(self.hyperparameters).items()}
        suggestions = self._engine().suggest(1)
        if not suggestions:
            return {"status": TrialStatus.STOPPED}
        values = suggestions[0].hyperparameters
        return {"status": TrialStatus.RUNNING, "values": {names[name]: value for name, value in values.items()}}

    def score_trial(self, trial: Any) -> None:
        """Sets the trial's score to its best finite value; NaN, which makes the trial invalid, when there is none."""
        observed = [(step.mean(), step.step) for step in trial.metrics.get_history(self.objective.name)]
        finite = [(float(value), step) for value, step in observed if math.isfinite(value)]
        if finite:
            trial.score, trial.best_step = min(finite, key=lambda pair: (self._sign * pair[0], pair[1]))
        else:
            trial.score = math.nan
            trial.message = f"the objective {self.objective.name} was {[value for value, _ in observed]}: not finite"

    def create_trial(self, tuner_id: str) -> Any:
        """Returns the trial that a worker is to run; see `keras_tuner.Oracle.create_trial`."""
        with self._exclusively():
            again = self._retry_queue[-1] if self._retry_queue and tuner_id not in self.ongoing_trials else None
            if again is not None:
                # What the failed run reported must not be averaged into the new one.
                self.trials[again].metrics = metrics_tracking.MetricsTracker()
                self.trials[again].score = self.trials[again].message = None
            return super().create_trial(tuner_id)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:
        """Takes a report of a running trial; see `keras_tuner.Oracle.update_trial`."""
        with self._exclusively():
            return super().update_trial(trial_id, metrics, step=step)

    def end_trial(self, trial: Any) -> None:
        """Takes the end of a trial.

        Raises:
            RuntimeError: So many trials failed that the search should not go on; the state is saved all the same.
        """
        with self._exclusively():
            super().end_trial(trial)
            # KerasTuner saves before it takes the trial off the list of those that run.
            self.save()
            reason = self._reason_to_give_up()
        if reason:
            raise RuntimeError(reason)

    def _check_consecutive_failures(self) -> None:
        """Left to `end_trial`: raised in the middle of KerasTuner's bookkeeping, it would lose the trial's end."""

    def _record_values(self, trial: Any) -> None:
        """Leaves a trial with a value for every parameter that is active, and for no other.

        KerasTuner's own way draws missing values without a seed, and takes away the value of a name that stands for
        other parameters in other scopes. It also notes what was tried, which the engine knows from the trials.
        """
        hp = trial.hyperparameters
        active = {parameter.name: parameter for parameter in reversed(hp.space) if hp.is_active(parameter)}
        for parameter in hp.space:
            if parameter.name not in active:
                hp.values.pop(parameter.name, None)
            elif parameter.name not in hp.values:
                hp.values[parameter.name] = active[parameter.name].default

    # Saving and reloading: the trials and the seed are the whole state

    def get_state(self) -> dict[str, Any]:
        """Returns what `set_state` restores."""
        return {**super().get_state(), "algorithm": self.algorithm}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned; the seed of the saved search holds.

        Raises:
            ValueError: The project was searched with another algorithm.
        """
        saved = state["algorithm"]
        if saved != self.algorithm:
            raise ValueError(
                f"This project was searched with the algorithm {saved!r}, not {self.algorithm!r}; give the same one, "
                "another project_name, or overwrite=True."
            )
        super().set_state(state)

    def save(self) -> None:
        """Writes the state; a process killed meanwhile leaves the state before."""
        _replacing(self._get_oracle_fname(), super(keras_tuner.Oracle, self).save)

    def reload(self) -> None:
        """Reads the state and the trials. What was running is run again, from its start; what has ended is not."""
        with self._exclusively():
            super().reload()
            # A process may be killed between writing a trial and writing the list of trials.
            for trial_id in sorted(set(self.trials) - set(self.start_order)):
                self.start_order.append(trial_id)
                self._retry_queue.append(trial_id)
            over = (TrialStatus.COMPLETED, TrialStatus.FAILED)
            for trial_id in [name for name in self._retry_queue if self.trials[name].status in over]:
                self._retry_queue.remove(trial_id)
                if trial_id not in self.end_order:
                    self.end_order.append(trial_id)
            # A retry takes the last of the queue: the earliest trial goes first.
            self._retry_queue[:] = sorted(set(self._retry_queue), key=self.start_order.index, reverse=True)

    def _save_trial(self, trial: Any) -> None:
        _replacing(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.save)

    # The engine

    def _engine(self) -> Algorithm:
        """The algorithm that knows all trials so far."""
        names = parameters_of(self.hyperparameters)
        space = Space(list(names))
        recipe = Recipe(name=self.algorithm, space=space, seed=self.seed, max_epochs=1, max_trials=self.max_trials)
        algorithm = Algorithm(recipe)
        theirs = {parameter.name: name for parameter, name in names.items()}
        for number, trial_id in enumerate(self.start_order):
            algorithm.update(_facts(number, self.trials[trial_id], space=space, theirs=theirs, sign=self._sign))
        return algorithm

    @property
    def _sign(self) -> float:
        return -1.0 if self.objective.direction == "max" else 1.0

    def _reason_to_give_up(self) -> str:
        """Why the search should end after the last trial that ended, or nothing."""
        ended = [self.trials[trial_id] for trial_id in self.end_order]
        limit = self.max_consecutive_failed_trials
        last = ended if limit is None else ended[-limit:]
        if len(last) != (limit or FIRST_TRIALS) or any(trial.status != TrialStatus.FAILED for trial in last):
            return ""
        what = f"The {'last' if limit else 'first'} {len(last)} trials all failed"
        return f"{what}; the last one: {(last[-1].message or 'unknown').strip()}"

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One worker at a time; KerasTuner's own lock, which an exception would leave held for ever, is let go."""
        with self._own_lock:
            try:
                yield
            except BaseException:
                if engine.THREADS[self] == threading.current_thread().name:
                    engine.THREADS[self] = None
                    engine.LOCKS[self].release()
                raise


def _facts(number: int, trial: Any, *, space: Space, theirs: Mapping[str, str], sign: float) -> Iterator[Fact]:
    """What is known of one of KerasTuner's trials; `theirs` has the names of our parameters in its values."""
    values = trial.hyperparameters.values
    configuration: dict[str, Value] = {}
    for name in space.names:
        if theirs[name] in values and space.is_active(name, configuration):
            configuration[name] = values[theirs[name]]
    yield Started(Suggestion(trial=number, hyperparameters=configuration, start_epoch=0, budget=1))
    if trial.status == TrialStatus.COMPLETED:
        yield Ended(number, Completed(sign * trial.score))
    elif trial.status == TrialStatus.FAILED:
        yield Ended(number, Failed(trial.message or "failed"))


def _check_trains_in_one_go(algorithm: str) -> None:
    check_algorithm_name(algorithm)
    scheduler = ALGORITHMS[algorithm][0] if algorithm in ALGORITHMS else algorithm.partition("+")[0]
    if "+" not in algorithm and algorithm not in ALGORITHMS:
        scheduler = "full"
    if scheduler != "full":
        fitting = ", ".join(name for name, (how, _) in ALGORITHMS.items() if how == "full")
        raise ValueError(
            f"The algorithm {algorithm!r} pauses and resumes trials, which KerasTuner's tuners cannot; expected one of "
            f"{fitting}. To search with it: tamiz search --algorithm {algorithm} --space module:build"
        )


def _replacing(path: str, write: Callable[[str], object]) -> None:
    """Writes a file under another name first; a place that is not on this machine is written as it is."""
    if "://" in path:
        write(path)
        return
    temporary = f"{path}.partial"
    write(temporary)
    Path(temporary).replace(path)
