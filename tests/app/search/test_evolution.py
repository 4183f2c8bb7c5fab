from __future__ import annotations

from dataclasses import replace

from app.search import Categorical, Completed, Ended, Failed, Outcome, Space, Started, create

SPACE = Space([Categorical(f"op{index}", ("skip", "conv", "pool", "none")) for index in range(8)])


def test_children_differ_from_a_good_young_trial_in_one_operation() -> None:
    algorithm = create("evolution", space=SPACE, seed=0, max_epochs=1)
    for number in range(30):
        suggestion = algorithm.suggest(1)[0]
        outcome: Outcome = Completed(float(number)) if number % 4 else Failed("lost")
        algorithm.update([Started(suggestion), Ended(suggestion.trial, outcome)])
    parents = [trial.hyperparameters for trial in algorithm.history.values() if trial.loss is not None]
    for child in algorithm.suggest(5):
        changes = [sum(child.hyperparameters[name] != parent[name] for name in SPACE.names) for parent in parents]
        assert min(changes) == 1


def test_old_trials_are_forgotten_however_good() -> None:
    # The first 20 trials are the best, and too old to be parents: 40 younger ones came after them.
    algorithm = create("evolution", space=SPACE, seed=0, max_epochs=1)
    drawn = create("random", space=SPACE, seed=1, max_epochs=1).suggest(400)
    old = [s for s in drawn if s.hyperparameters["op0"] == "skip"][:20]
    young = [s for s in drawn if s.hyperparameters["op0"] == "pool"][:40]
    for number, source in enumerate([*old, *young]):
        suggestion = replace(source, trial=number)
        algorithm.update([Started(suggestion), Ended(number, Completed(0.0 if number < 20 else 1.0))])
    for child in algorithm.suggest(4):
        changes = [sum(child.hyperparameters[n] != s.hyperparameters[n] for n in SPACE.names) for s in young]
        assert min(changes) == 1
