from __future__ import annotations

import pytest

from search_spaces.network_size import schedule_share


@pytest.mark.parametrize("prefix", ["", "realmlp/"])
def test_a_schedule_is_over_after_its_share_of_the_epochs(prefix: str) -> None:
    share = f"{prefix}epoch_share"
    assert schedule_share({"width": 8, share: 0.25}) == (share, 0.25)
    assert schedule_share({share: 1.0, f"{prefix}schedule": "cosine"}) == (share, 1.0)


def test_a_rate_that_stays_as_it_is_ends_with_no_share() -> None:
    assert schedule_share({"epoch_share": 0.25, "schedule": "constant"}) is None
    assert schedule_share({"tabm/epoch_share": 0.25, "tabm/schedule": "constant"}) is None


def test_without_the_parameter_there_is_no_share() -> None:
    assert schedule_share({"schedule": "cosine", "learning_rate": 1e-3}) is None
