from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.search.rank_agreement import RankAgreement
from app.search_progress import Progress
from app.shared_scores import (
    STAGE,
    agreement_of,
    agreement_told,
    agreement_warning,
    chosen_cells,
    ranking_warning,
    scalars_of_agreement,
    shared_values,
)

ALONE = (0.95, 0.80, 0.60, 0.90)
SHARED = (0.9, 0.7, 0.5, 0.8)


def progress_of(*, stopped: bool, values: Sequence[float] = SHARED) -> Progress:
    """Four cells of known ranks, of which the third was left before its end, and one of another recipe."""
    search = {
        "algorithm": "one-shot", "reason": "as asked", "objective": "accuracy", "max_epochs": 5, "seed": 1,
        "max_trials": None,
    }  # fmt: skip
    cells = [{"hyperparameters": {"edge": number, "rate": 0.1}, "value": one} for number, one in enumerate(values)]
    records: list[dict[str, Any]] = [
        {"event": "stage", "stage": STAGE, "details": {"cells": cells, "ranked": 40}},
    ]
    for number, value in enumerate((*ALONE, 0.99)):
        values = {"edge": number % 4, "rate": 0.1 if number < 4 else 0.2}
        suggested = {"hyperparameters": values, "start_epoch": 0, "budget": 5, "bracket": 0, "rung": 0}
        records.append({"event": "started", "trial": number, **suggested})
        records.append({"event": "reported", "trial": number, "epoch": 2, "loss": -value})
        if number == 2:
            records += [{"event": "stopped", "trial": 2, "reason": "hopeless"}] if stopped else []
            records.append({"event": "ended", "trial": 2, "outcome": "pruned", "step": 2})
        else:
            records.append({"event": "ended", "trial": number, "outcome": "completed", "value": -value})
    progress = Progress()
    progress.search = _search(search)
    progress.apply_all(records)
    return progress


def _search(record: dict[str, Any]) -> Any:
    from app.search_progress import Search

    return Search.from_json(record)


def test_a_trial_is_compared_where_only_its_weights_differ() -> None:
    assert shared_values(progress_of(stopped=True)) == dict(enumerate(SHARED))


def test_the_order_of_shared_weights_is_held_against_that_of_trials() -> None:
    found = agreement_of(progress_of(stopped=True))
    assert found is not None
    assert found.number == 4
    assert found.spearman == pytest.approx(1.0)


def test_a_trial_that_ran_out_of_time_says_nothing() -> None:
    found = agreement_of(progress_of(stopped=False))
    assert found is not None
    assert found.number == 3


def test_without_a_ranking_there_is_nothing_to_tell() -> None:
    progress = progress_of(stopped=True)
    progress.stages.clear()
    assert shared_values(progress) == {}
    assert agreement_of(progress) is None
    assert ranking_warning(progress) == ""
    assert scalars_of_agreement(None) == {}


def test_too_few_cells_to_compare_are_told() -> None:
    assert ranking_warning(progress_of(stopped=True, values=SHARED[:2])) == (
        "shared weights ranked 40 cells, and 2 of them were trained by themselves to the end: too few to tell whether "
        "the ranking is right, which takes at least 6; give the search more --time"
    )


def test_cells_that_shared_weights_cannot_tell_apart_are_told() -> None:
    told = ranking_warning(progress_of(stopped=True, values=(0.5,) * 4))
    assert "and 4 of them were trained by themselves to the end, which one of the two gave the same value" in told
    assert ranking_warning(progress_of(stopped=True)).endswith("but 4 cells are too few to trust that")


def test_a_low_correlation_is_warned_of() -> None:
    low = RankAgreement(number=6, spearman=0.49, kendall=0.3)
    message = agreement_warning(low)
    assert message.startswith("shared weights and training alone rank 6 cells with a correlation of 0.49 (Spearman;")
    assert "below 0.5 the ranking by shared weights says little; give the search more --time" in message
    assert scalars_of_agreement(low) == {"one_shot/spearman": 0.49, "one_shot/kendall": 0.3, "one_shot/cells": 6.0}


def test_a_high_correlation_is_no_warning_unless_it_is_one_of_few_cells() -> None:
    assert agreement_warning(RankAgreement(number=6, spearman=0.5, kendall=0.4)) == ""
    few = RankAgreement(number=4, spearman=0.9, kendall=0.8)
    assert agreement_warning(few) == f"{agreement_told(few)}, but 4 cells are too few to trust that"


def test_the_best_are_chosen_and_some_of_other_ranks_between_them() -> None:
    cells = [{"drawn": place % 2 == 1} for place in range(40)]
    chosen = chosen_cells(cells, best=3, spread=3)
    assert chosen[::2] == [0, 1, 2]
    assert sorted(chosen[1::2]) == [11, 21, 31]
    assert chosen[1] == 21


def test_few_cells_are_all_chosen() -> None:
    assert chosen_cells([{"drawn": True}, {"drawn": True}], best=3, spread=3) == [0, 1]
    assert chosen_cells([], best=3, spread=3) == []
