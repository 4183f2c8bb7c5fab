from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search import Completed, Failed, History, Pruned, Trial
from app.search.limits import Limit, Sense, is_feasible, parse_limit, resolve_measure, unmet_limits, violation


def trial(number: int, failed: bool = False, **measures: float) -> Trial:
    outcome = Failed("x") if failed else Completed(1.0)
    return Trial(number=number, hyperparameters={}, budget=1, outcome=outcome, measures=measures)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("latency_ms<=5", Limit("latency_ms", 5.0)),
        (" latency <= 5ms ", Limit("latency_ms", 5.0)),
        ("latency<0.005 s", Limit("latency_ms", 5.0)),
        ("Latency-ms =< 250us", Limit("latency_ms", 0.25)),
        ("num_parameters<=2e6", Limit("num_parameters", 2e6)),
        ("parameters <= 2M", Limit("num_parameters", 2e6)),
        ("params<=1,500k", Limit("num_parameters", 1.5e6)),
        ("params<=2,000,000.0", Limit("num_parameters", 2e6)),
        ("num_parameters >= 1_000", Limit("num_parameters", 1e3, Sense.AT_LEAST)),
        ("size<=10MB", Limit("size_bytes", 1e7)),
        ("size<=1MiB", Limit("size_bytes", 1048576.0)),
        ("size_mb<=1.5", Limit("size_bytes", 1.5e6)),
        ("size_bytes > .5e3", Limit("size_bytes", 500.0, Sense.AT_LEAST)),
        ("flops<=20M", Limit("flops", 2e7)),
        ("mflops<=20", Limit("flops", 2e7)),
        ("memory<=1.5GB", Limit("memory_bytes", 1.5e9)),
        ("f1>=-0.5", Limit("f1", -0.5, Sense.AT_LEAST)),
    ],
)
def test_limits_are_read_with_their_units(text: str, limit: Limit) -> None:
    assert parse_limit(text, others=["f1"]) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", r"limit 'latency' cannot be read; expected a measure, <= or >=, and a number"),
        ("latency_ms<=-1", r"The limit 'latency_ms<=-1' can never be kept; expected a number above 0\."),
        ("size_mb<=0", "can never be kept"),
        ("latency=5", "cannot be read"),
        ("<=5", "cannot be read"),
        ("", "cannot be read"),
        ("latency<=", "cannot be read"),
        ("latncy<=5", "no measure 'latncy'; did you mean 'latency'"),
        ("zzzz<=5", "no measure 'zzzz'; expected one of latency_ms, num_parameters, size_bytes, flops, memory_bytes"),
        ("latency<=five", "ends in 'five'; expected a number, perhaps followed by one of ms, s, us"),
        ("latency<=5MB", "ends in '5MB'; expected a number, perhaps followed by one of ms"),
        ("size_mb<=5MB", "ends in '5MB'; expected a number"),
        ("latency<=1,5", "ends in '1,5'; expected a number, with a point before its decimals, perhaps followed by one"),
        ("size_mb<=0,25", "ends in '0,25'; expected a number, with a point before its decimals"),
        ("parameters<=inf", "ends in 'inf'"),
        ("parameters<=1e999", "limit on 'num_parameters' is inf; expected a finite number"),
    ],
)
def test_limits_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_limit(text, others=["f1"])


def test_measures_have_short_names() -> None:
    assert resolve_measure("Latency") == ("latency_ms", 1.0)
    assert resolve_measure("size-mb") == ("size_bytes", 1e6)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(Sense))
def test_violation_is_zero_exactly_where_the_limit_holds(bound: float, value: float, sense: Sense) -> None:
    limit = Limit("m", bound, sense)
    assert (limit.violation(value) == 0.0) == limit.holds(value) or math.isclose(value, bound, rel_tol=1e-15)
    assert limit.violation(value) >= 0.0
    assert limit.holds(bound)
    assert Limit.from_json(limit.to_json()) == limit


def test_violation_grows_with_the_distance_and_adds_up() -> None:
    limits = (Limit("a", 10.0), Limit("b", 5.0, Sense.AT_LEAST))
    assert violation(trial(0, a=20.0, b=5.0), limits) == pytest.approx(math.log(2.0))
    assert violation(trial(0, a=20.0, b=2.5), limits) == pytest.approx(2.0 * math.log(2.0))
    assert violation(trial(0, a=9.0, b=6.0), limits) == 0.0
    assert violation(trial(0, a=9.0), limits) is None
    assert not is_feasible(trial(0, a=9.0), limits)
    assert Limit("a", 1.0).violation(math.nan) == math.inf


def test_unmet_limits_are_told_after_enough_trials_and_only_until_one_meets_them() -> None:
    limits = (Limit("latency_ms", 5.0), Limit("num_parameters", 1e6))
    trials = [trial(number, latency_ms=9.0 - number, num_parameters=10.0) for number in range(5)]
    assert unmet_limits(History(trials[:4]), limits) == ()
    # Trial 4 has exactly 5 ms.
    assert unmet_limits(History(trials), limits) == ()
    slow = [*trials[:4], trial(4, latency_ms=6.5, num_parameters=10.0)]
    (unmet,) = unmet_limits(History(slow), limits)
    assert (unmet.limit, unmet.num_trials, unmet.closest, unmet.trial) == (limits[0], 5, 6.0, 3)
    assert str(unmet) == "none of 5 trials keeps the limit latency_ms<=5 (the nearest: 6, trial 3)"
    assert unmet_limits(History(slow), ()) == ()


def test_limits_kept_one_by_one_but_never_together_are_told() -> None:
    limits = (Limit("a", 5.0), Limit("b", 5.0))
    trials = [trial(number, a=4.0, b=6.0) if number % 2 else trial(number, a=20.0, b=1.0) for number in range(6)]
    (unmet,) = unmet_limits(History(trials), limits)
    assert (unmet.limit.measure, unmet.trial) == ("b", 1)


def test_failed_trials_say_nothing_about_limits_and_untrained_ones_do() -> None:
    limits = (Limit("a", 5.0),)
    pruned = Trial(number=9, hyperparameters={}, budget=1, outcome=Pruned(0), measures={"a": 8.0})
    trials = [trial(number, failed=True, a=1.0) for number in range(5)]
    assert unmet_limits(History([*trials, pruned]), limits) == ()
    assert unmet_limits(History([*trials, pruned]), limits, after=1)[0].trial == 9
