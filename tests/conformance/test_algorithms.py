"""What every algorithm must keep, whatever it is made of. A new one inherits the suite by its line in `ALGORITHMS`."""

from __future__ import annotations

import json
import math

import pytest

from app.search import (
    ALGORITHMS,
    Algorithm,
    Boolean,
    Categorical,
    Completed,
    Condition,
    Ended,
    Fact,
    Failed,
    Float,
    Int,
    Outcome,
    Paused,
    Reported,
    Scale,
    Space,
    Started,
    Suggestion,
    create,
    fact_from_json,
    fact_to_json,
)

MAX_EPOCHS = 9

MIXED = Space(
    [
        Int("depth", 1, 3),
        Float("rate", 1e-4, 1e-1, scale=Scale.LOG),
        Categorical("optimizer", ("adam", "sgd", "rmsprop")),
        Float("momentum", 0.0, 0.9, conditions=(Condition("optimizer", ("sgd",)),)),
        Boolean("nesterov", conditions=(Condition("optimizer", ("sgd",)),)),
        Int("width", 16, 256, step=2, scale=Scale.LOG, conditions=(Condition("depth", (2, 3)),)),
    ]
)
SMALL = Space(
    [
        Categorical("kind", ("plain", "deep")),
        Int("layers", 1, 4, conditions=(Condition("kind", ("deep",)),)),
        Boolean("norm"),
    ]
)
ONE_POINT = Space([Int("only", 3, 3), Categorical("choice", ("this",))])

NAMES = [*ALGORITHMS, "hyperband+random", "hyperband+grid"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, space: Space = MIXED, seed: int = 0) -> Algorithm:
    return create(name, space=space, seed=seed, max_epochs=MAX_EPOCHS)


def loss_of(suggestion: Suggestion) -> float:
    values = suggestion.hyperparameters
    text = sum(len(value) for value in values.values() if isinstance(value, str))
    return text + sum(abs(float(v) - 0.3) for v in values.values() if not isinstance(v, str)) + 1.0 / suggestion.budget


def trained(suggestion: Suggestion, loss: float) -> list[Fact]:
    """What a worker tells about a suggestion that went well."""
    outcome: Outcome = Completed(loss) if suggestion.budget == MAX_EPOCHS else Paused(suggestion.budget)
    trial = suggestion.trial
    return [Started(suggestion), Reported(trial, suggestion.budget, loss), Ended(trial, outcome)]


def run(algorithm: Algorithm, num_steps: int) -> list[Suggestion]:
    """Suggestions of a search with one worker, stopped early when exhausted."""
    done = []
    for _ in range(num_steps):
        for suggestion in algorithm.suggest(1):
            algorithm.update(trained(suggestion, loss_of(suggestion)))
            done.append(suggestion)
    return done


def test_suggest_does_not_change_state(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 12)
    before = algorithm.dump()
    first = algorithm.suggest(3)
    first[0].hyperparameters.clear()  # type: ignore[attr-defined]
    assert algorithm.suggest(2) == algorithm.suggest(2)
    assert algorithm.suggest(3)[1:] == first[1:]
    assert algorithm.suggest(3)[0].hyperparameters
    assert algorithm.dump() == before


def test_loaded_algorithm_suggests_the_same(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 14)
    algorithm.update([Started(algorithm.suggest(1)[0])])
    loaded = Algorithm.load(json.loads(json.dumps(algorithm.dump())))
    assert loaded.history == algorithm.history
    assert loaded.suggest(2) == algorithm.suggest(2)


def test_replayed_journal_continues_the_sequence(name: str) -> None:
    algorithm = make(name)
    facts: list[Fact] = []
    undisturbed = run(make(name), 16)
    for _ in range(11):
        suggestion = algorithm.suggest(1)[0]
        news = trained(suggestion, loss_of(suggestion))
        algorithm.update(news)
        facts += news
    resumed = make(name)
    resumed.update(fact_from_json(json.loads(json.dumps(fact_to_json(fact)))) for fact in facts)
    assert run(resumed, 5) == undisturbed[11:]


def test_trial_running_at_a_kill_is_known_and_not_suggested_again(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 11)
    suggestion = algorithm.suggest(1)[0]
    algorithm.update([Started(suggestion)])
    assert [trial.suggestion for trial in algorithm.history.running] == [suggestion]
    assert suggestion not in algorithm.suggest(4)
    algorithm.update([Started(suggestion), *trained(suggestion, 1.0)[1:]])
    assert not algorithm.history.running


def test_suggestions_stay_in_the_space_and_leave_out_inactive_parameters(name: str) -> None:
    # `validate` refuses values outside, missing active and present inactive parameters.
    for suggestion in run(make(name), 40):
        MIXED.validate(suggestion.hyperparameters)
        assert 0 <= suggestion.start_epoch < suggestion.budget <= MAX_EPOCHS


def test_batch_is_of_distinct_new_configurations(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 12)
    known = {MIXED.key(trial.hyperparameters) for trial in algorithm.history.values()}
    batch = [s for s in algorithm.suggest(6) if s.start_epoch == 0]
    keys = [MIXED.key(suggestion.hyperparameters) for suggestion in batch]
    assert len(set(keys)) == len(keys)
    assert not known & set(keys)


@pytest.mark.parametrize("num_known", [0, 14])
def test_batch_for_one_graph_shares_the_values_asked_for(name: str, num_known: int) -> None:
    algorithm = make(name)
    run(algorithm, num_known)
    alike = ("optimizer", "momentum", "width", "not_a_parameter")
    batch = [s.hyperparameters for s in algorithm.suggest(5, alike=alike) if s.start_epoch == 0]
    assert len({MIXED.key(configuration) for configuration in batch}) == len(batch)
    for parameter in alike[:3]:
        assert len({configuration[parameter] for configuration in batch if parameter in configuration}) <= 1
    for configuration in batch:
        MIXED.validate(configuration)
    assert algorithm.suggest(1, alike=alike) == algorithm.suggest(1)


def test_batch_for_one_graph_ends_when_no_more_share_the_values(name: str) -> None:
    algorithm = make(name, space=SMALL)
    tried = 0
    for _ in range(60):
        batch = algorithm.suggest(4, alike=SMALL.names)
        fresh = [suggestion for suggestion in batch if suggestion.start_epoch == 0]
        assert len(fresh) <= 1
        tried += len(fresh)
        for suggestion in batch:
            algorithm.update(trained(suggestion, loss_of(suggestion)))
    assert tried == SMALL.num_configurations
    assert algorithm.is_exhausted


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_seeds_repeat_the_search(name: str, seed: int) -> None:
    assert run(make(name, seed=seed), 15) == run(make(name, seed=seed), 15)


def test_different_seeds_differ(name: str) -> None:
    # Zero is a seed like any other, not "random".
    assert run(make(name, seed=0), 5) != run(make(name, seed=1), 5)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_is_a_failure(name: str, loss: float) -> None:
    algorithm = make(name)
    run(algorithm, 11)
    suggestion = algorithm.suggest(1)[0]
    algorithm.update(trained(suggestion, loss))
    assert [trial.number for trial in algorithm.history.failed] == [suggestion.trial]
    assert algorithm.recommend() != suggestion.trial
    assert len(run(algorithm, 5)) == 5


def test_facts_told_twice_change_nothing(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 11)
    suggestion = algorithm.suggest(1)[0]
    news = trained(suggestion, 1.0)
    algorithm.update(news)
    history, future = algorithm.history, algorithm.suggest(2)
    algorithm.update(news[1:])
    assert algorithm.history == history
    assert algorithm.suggest(2) == future


def test_large_batch_is_of_distinct_configurations(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 12)
    batch = [suggestion for suggestion in algorithm.suggest(64) if suggestion.start_epoch == 0]
    keys = {MIXED.key(suggestion.hyperparameters) for suggestion in batch}
    assert len(keys) == len(batch)
    for suggestion in batch:
        MIXED.validate(suggestion.hyperparameters)


def test_equal_configurations_and_equal_losses_told_to_it_do_no_harm(name: str) -> None:
    # Somebody enqueues what was tried, or adds results of an earlier search twice.
    algorithm = make(name)
    configuration = MIXED.default()
    for number in range(14):
        suggestion = Suggestion(number, configuration, start_epoch=0, budget=MAX_EPOCHS)
        algorithm.update(trained(suggestion, 1.0))
    assert algorithm.recommend() is not None
    following = run(algorithm, 6)
    assert len(following) == 6
    assert MIXED.key(configuration) not in {MIXED.key(suggestion.hyperparameters) for suggestion in following}


def test_search_goes_on_after_failures_at_the_start(name: str) -> None:
    algorithm = make(name)
    for _ in range(9):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Failed("out of memory"))])
    done = run(algorithm, 10)
    assert len(done) == 10
    assert algorithm.recommend() in {suggestion.trial for suggestion in done}


def test_search_goes_on_when_every_trial_fails(name: str) -> None:
    algorithm = make(name)
    seen = set()
    for _ in range(25):
        suggestion = algorithm.suggest(1)[0]
        algorithm.update([Started(suggestion), Ended(suggestion.trial, Failed("out of memory"))])
        seen.add(MIXED.key(suggestion.hyperparameters))
    assert len(seen) == 25
    assert algorithm.recommend() is None


def test_space_of_one_point_is_tried_once(name: str) -> None:
    algorithm = make(name, space=ONE_POINT)
    tried = {suggestion.trial for suggestion in run(algorithm, 10)}
    assert tried == {0}
    assert algorithm.history[0].hyperparameters == {"only": 3, "choice": "this"}
    assert algorithm.is_exhausted


def test_exhausted_space_ends_cleanly(name: str) -> None:
    algorithm = make(name, space=SMALL)
    run(algorithm, 60)
    keys = [SMALL.key(trial.hyperparameters) for trial in algorithm.history.values()]
    assert len(keys) == len(set(keys))
    assert set(keys) == {SMALL.key(configuration) for configuration in SMALL.enumerate()}
    assert algorithm.suggest(4) == []
    assert algorithm.is_exhausted
    assert algorithm.recommend() is not None


def test_search_with_several_workers_ends_and_covers_the_space(name: str) -> None:
    # Workers end in another order than they started; some trials fail.
    algorithm = make(name, space=SMALL)
    running: list[Suggestion] = []
    for step in range(200):
        if len(running) < 3:
            news = algorithm.suggest(3 - len(running))
            algorithm.update(Started(suggestion) for suggestion in news)
            running += news
        if not running:
            break
        suggestion = running.pop(step % len(running))
        facts = trained(suggestion, loss_of(suggestion))[1:]
        algorithm.update([Ended(suggestion.trial, Failed("lost"))] if step % 5 == 4 else facts)
    assert algorithm.is_exhausted
    assert len(algorithm.history) == SMALL.num_configurations


def test_trial_limit_is_kept(name: str) -> None:
    algorithm = create(name, space=MIXED, seed=0, max_epochs=MAX_EPOCHS, max_trials=7)
    run(algorithm, 40)
    assert len(algorithm.history) == 7
    assert algorithm.is_exhausted
    # Somebody reaches the full budget even when the limit cuts a bracket short.
    assert any(trial.epochs == MAX_EPOCHS for trial in algorithm.history.values())


def test_space_may_grow_during_the_search(name: str) -> None:
    algorithm = make(name)
    run(algorithm, 11)
    algorithm.grow([Float("decay", 1e-6, 1e-2, scale=Scale.LOG), Boolean("skip")])
    suggestions = [suggestion for suggestion in run(algorithm, 12) if suggestion.start_epoch == 0]
    assert suggestions
    for suggestion in suggestions:
        assert {"decay", "skip"} <= set(suggestion.hyperparameters)
        algorithm.space.validate(suggestion.hyperparameters)
