"""The engine behind KerasTuner's contract, with KerasTuner's own tuners; its known defects are tests here."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

keras_tuner = pytest.importorskip("keras_tuner")

import keras  # noqa: E402
import numpy as np  # noqa: E402

import tamiz  # noqa: E402
from app.keras_tuner_oracle import KerasTunerOracle  # noqa: E402
from app.search.parameters import Value  # noqa: E402

# KerasTuner asks for the current thread the old way, and Keras copies arrays the old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]

Score = Callable[[Any], Any]


class FunctionTuner(keras_tuner.Tuner):
    """A tuner whose trials call a function, as KerasTuner offers for anything that is not a Keras model."""

    def __init__(self, score: Score, oracle: Any, directory: Path, **settings: Any) -> None:
        self._score = score
        super().__init__(oracle=oracle, directory=directory, project_name="project", **settings)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> Any:
        return self._score(trial.hyperparameters)


def quadratic(hp: Any) -> float:
    return float((hp.Float("x", -2.0, 2.0) - 0.7) ** 2 + 0.1 * hp.Int("n", 1, 5))


def searched(score: Score, directory: Path, *, overwrite: bool = True, **settings: Any) -> FunctionTuner:
    oracle = KerasTunerOracle(**{"max_trials": 12, "seed": 0, **settings})
    tuner = FunctionTuner(score, oracle, directory, overwrite=overwrite)
    tuner.search(verbose=0)
    return tuner


def values(tuner: FunctionTuner) -> list[dict[str, Value]]:
    return [tuner.oracle.trials[name].hyperparameters.values for name in tuner.oracle.start_order]


def scores(tuner: FunctionTuner) -> list[float | None]:
    return [tuner.oracle.trials[name].score for name in tuner.oracle.start_order]


def test_it_is_offered_by_the_public_module() -> None:
    assert tamiz.KerasTunerOracle is KerasTunerOracle
    with pytest.raises(AttributeError, match="has no attribute 'KerasTunerOrakel'"):
        tamiz.KerasTunerOrakel  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture(scope="module")
def keras_search(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """KerasTuner's plain tuner over a real network with a conditional scope."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 4)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("float32")

    def build(hp: Any) -> Any:
        hidden = hp.Boolean("hidden", default=True)
        layers = [keras.layers.Input((4,))]
        with hp.conditional_scope("hidden", [True]):
            if hidden:
                layers.append(keras.layers.Dense(hp.Int("units", 2, 8), activation="relu"))
        model = keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(hp.Float("rate", 1e-3, 1.0, sampling="log")), "binary_crossentropy")
        return model

    tuner = keras_tuner.Tuner(
        hypermodel=build,
        oracle=tamiz.KerasTunerOracle("val_loss", max_trials=3, seed=0),
        directory=tmp_path_factory.mktemp("keras"),
        project_name="project",
    )
    tuner.search(x[:96], y[:96], validation_data=(x[96:], y[96:]), epochs=1, verbose=0)
    return tuner


def test_plain_tuner_runs_with_one_line_changed(keras_search: Any) -> None:
    trials = list(keras_search.oracle.trials.values())
    assert [trial.status for trial in trials] == ["COMPLETED"] * 3
    assert all(0.0 < trial.score < 5.0 for trial in trials)
    assert keras_search.get_best_hyperparameters()[0].get("rate") == min(
        trials, key=lambda trial: trial.score
    ).hyperparameters.get("rate")


def test_conditional_parameter_has_a_value_only_where_it_is_active(keras_search: Any) -> None:
    assert {"hidden", "units", "rate"} <= {hp.name for hp in keras_search.oracle.get_space().space}
    for trial in keras_search.oracle.trials.values():
        assert ("units" in trial.hyperparameters.values) == trial.hyperparameters.values["hidden"]


def test_it_finds_better_values_than_the_start(tmp_path: Path) -> None:
    found = [score for score in scores(searched(quadratic, tmp_path, max_trials=20)) if score is not None]
    assert min(found[8:]) < min(found[:8])
    assert min(found) < 0.15


def test_direction_is_kept(tmp_path: Path) -> None:
    objective = keras_tuner.Objective("height", direction="max")
    tuner = searched(
        lambda hp: {"height": -quadratic(hp)}, tmp_path, objective=objective, max_trials=13, algorithm="random"
    )
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.score == max(score for score in scores(tuner) if score is not None)
    losses = [trial.loss for trial in tuner.oracle._engine().history.values()]
    assert losses == [-score for score in scores(tuner) if score is not None]


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_score_that_is_not_finite_is_a_failure_and_never_the_best(tmp_path: Path, bad: float, direction: str) -> None:
    def score(hp: Any) -> dict[str, float]:
        good = quadratic(hp)
        return {"metric": bad if hp.get("n") < 3 else good}

    objective = keras_tuner.Objective("metric", direction=direction)
    tuner = searched(score, tmp_path, objective=objective, max_trials=6)
    by_status = {trial.status for trial in tuner.oracle.trials.values()}
    assert by_status == {"COMPLETED", "FAILED"}
    assert math.isfinite(tuner.oracle.get_best_trials(1)[0].score)
    failed = [trial for trial in tuner.oracle.trials.values() if trial.status == "FAILED"]
    # KerasTuner itself stumbles over NaN, and says so in its own words.
    assert all(trial.message and (math.isnan(bad) or "not finite" in trial.message) for trial in failed)


def test_retry_that_goes_well_keeps_its_own_result(tmp_path: Path) -> None:
    runs: list[float] = []

    def score(hp: Any) -> float:
        quadratic(hp)
        runs.append(hp.get("x"))
        return math.nan if len(runs) == 1 else 0.5

    tuner = searched(score, tmp_path, max_trials=2, max_retries_per_trial=1)
    assert runs[0] == runs[1]
    assert scores(tuner) == [0.5, 0.5]
    assert tuner.oracle.trials["0"].message is None


def test_small_space_is_covered_without_duplicates_and_ends(tmp_path: Path) -> None:
    tuner = searched(lambda hp: hp.Int("a", 1, 4) + hp.Int("b", 1, 4), tmp_path, max_trials=30)
    pairs = [(trial["a"], trial["b"]) for trial in values(tuner)]
    assert len(pairs) == len(set(pairs)) == 16


def test_space_grows_as_builds_reveal_parameters(tmp_path: Path) -> None:
    def score(hp: Any) -> float:
        kind = hp.Choice("kind", ["plain", "deep"])
        return quadratic(hp) + (hp.Float("late", 0.0, 1.0) if kind == "deep" else 0.5)

    tuner = searched(score, tmp_path)
    late = {trial["late"] for trial in values(tuner) if "late" in trial}
    assert len(late) > 3


def test_one_name_may_have_other_ranges_in_other_scopes(tmp_path: Path) -> None:
    def score(hp: Any) -> float:
        kind = hp.Choice("kind", ["small", "large"])
        with hp.conditional_scope("kind", ["small"]):
            if kind == "small":
                units = hp.Int("units", 1, 4)
        with hp.conditional_scope("kind", ["large"]):
            if kind == "large":
                units = hp.Int("units", 8, 16)
                with hp.conditional_scope("units", [16]):
                    if units == 16:
                        units += hp.Float("extra", 0.0, 0.5)
        return abs(units - 16.3)

    tuner = searched(score, tmp_path, max_trials=20)
    for trial in values(tuner):
        assert set(trial) - {"extra"} == {"kind", "units"}
        assert (int(trial["units"]) >= 8) == (trial["kind"] == "large")
        assert ("extra" in trial) == (trial["units"] == 16)
    assert len({(trial["kind"], trial["units"], trial.get("extra")) for trial in values(tuner)}) == 20
    assert {trial["kind"] for trial in values(tuner)} == {"small", "large"}


def test_search_without_parameters_runs_once(tmp_path: Path) -> None:
    assert scores(searched(lambda _: 1.0, tmp_path)) == [1.0]


def test_equal_seeds_repeat_the_search_zero_included(tmp_path: Path) -> None:
    first = searched(quadratic, tmp_path / "first", max_trials=12)
    second = searched(quadratic, tmp_path / "second", max_trials=12)
    other = searched(quadratic, tmp_path / "other", max_trials=12, seed=1)
    assert first.oracle.seed == 0
    assert values(first) == values(second) != values(other)


@pytest.mark.parametrize("algorithm", ["bayesian", "random"])
def test_reloaded_search_goes_on_as_it_would_have(tmp_path: Path, algorithm: str) -> None:
    whole = searched(quadratic, tmp_path / "whole", max_trials=14, algorithm=algorithm)
    searched(quadratic, tmp_path / "halves", max_trials=12, algorithm=algorithm)
    # The limit is written into the trials' names, so both halves have two digits.
    rest = searched(quadratic, tmp_path / "halves", max_trials=14, algorithm=algorithm, overwrite=False)
    assert values(rest) == values(whole)
    assert scores(rest) == scores(whole)


def test_random_seed_is_saved(tmp_path: Path) -> None:
    first = searched(quadratic, tmp_path, max_trials=2, seed=None)
    again = searched(quadratic, tmp_path, max_trials=2, seed=None, overwrite=False)
    assert again.oracle.seed == first.oracle.seed


def test_what_was_running_at_a_kill_runs_again_and_what_ended_does_not(tmp_path: Path) -> None:
    calls: list[float] = []

    def score(hp: Any) -> float:
        calls.append(hp.Float("x", 0.0, 1.0))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return calls[-1]

    with pytest.raises(KeyboardInterrupt):
        searched(score, tmp_path, max_trials=6)
    # Killed between writing a trial's end and the list of trials: the list does not know yet.
    state_file = tmp_path / "project" / "oracle.json"
    state = json.loads(state_file.read_text())
    state["end_order"].remove("2")
    state["ongoing_trials"]["tuner9"] = "2"
    state["start_order"].remove("3")
    state_file.write_text(json.dumps(state))
    tuner = searched(score, tmp_path, max_trials=6, overwrite=False)
    assert calls[3] == calls[4]
    assert len(calls) == 7
    assert sorted(tuner.oracle.end_order) == ["0", "1", "2", "3", "4", "5"]
    assert not list((tmp_path / "project").rglob("*.partial"))


def test_exception_in_one_worker_does_not_hang_the_others(tmp_path: Path) -> None:
    oracle = KerasTunerOracle(keras_tuner.Objective("loss", "min"), max_trials=4, seed=0)
    FunctionTuner(quadratic, oracle, tmp_path)
    hp = keras_tuner.HyperParameters()
    quadratic(hp)
    oracle.update_space(hp)
    oracle.verbose = 0
    raised: list[BaseException] = []
    done: list[Any] = []

    def breaks() -> None:
        trial = oracle.create_trial("first")
        try:
            oracle.update_trial(trial.trial_id, {"accuracy": 1.0})
        except ValueError as error:
            raised.append(error)

    def works() -> None:
        trial = oracle.create_trial("second")
        oracle.update_trial(trial.trial_id, {"loss": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        done.append(trial.trial_id)

    for job in (breaks, works):
        thread = threading.Thread(target=job, daemon=True)
        thread.start()
        thread.join(timeout=20)
    assert "Objective value missing" in str(raised[0])
    assert done == ["1"]


def test_several_failures_in_a_row_do_not_end_the_search(tmp_path: Path) -> None:
    calls: list[float] = []

    def score(hp: Any) -> float:
        calls.append(quadratic(hp))
        if 2 <= len(calls) <= 8:
            raise RuntimeError("out of memory")
        return calls[-1]

    tuner = searched(score, tmp_path)
    assert [trial.status for trial in tuner.oracle.trials.values()].count("FAILED") == 7
    assert len(calls) == 12


def test_search_whose_first_trials_all_fail_ends_with_the_reason_and_keeps_its_state(tmp_path: Path) -> None:
    def score(hp: Any) -> float:
        quadratic(hp)
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match=r"(?s)The first 5 trials all failed; the last one: .*no such layer"):
        searched(score, tmp_path)
    state = json.loads((tmp_path / "project" / "oracle.json").read_text())
    assert len(state["end_order"]) == 5
    assert state["ongoing_trials"] == {}


def test_limit_on_failures_in_a_row_is_kept(tmp_path: Path) -> None:
    def score(hp: Any) -> float:
        quadratic(hp)
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="The last 2 trials all failed"):
        searched(score, tmp_path, max_consecutive_failed_trials=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "bayesan"}, "no algorithm 'bayesan'; did you mean 'bayesian'"),
        ({"algorithm": "hyperband"}, "'hyperband' pauses and resumes trials, .* cannot; expected one of random"),
        ({"algorithm": "hyperband+random"}, "pauses and resumes trials"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": True}, "seed is True; expected a whole number"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasTunerOracle("val_loss", **settings)


def test_project_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    searched(quadratic, tmp_path, max_trials=2)
    with pytest.raises(ValueError, match="searched with the algorithm 'bayesian', not 'random'; give the same one"):
        searched(quadratic, tmp_path, max_trials=2, algorithm="random", overwrite=False)
