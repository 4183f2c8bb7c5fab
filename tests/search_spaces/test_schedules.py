from __future__ import annotations

import keras
import numpy as np
import pytest

from search_spaces.schedules import FlatCosine, LogCycles, WarmupCosine, last_step, rest_at, runs_in_cycles


@pytest.mark.parametrize(("total", "warmup"), [(50, 0), (50, 10), (3, 2), (1, 0)])
def test_curve_is_that_of_keras(total: int, warmup: int) -> None:
    ours = WarmupCosine(0.02, total_steps=total, warmup_steps=warmup)
    theirs = keras.optimizers.schedules.CosineDecay(0.02, total)
    if warmup:
        theirs = keras.optimizers.schedules.CosineDecay(
            0.02 / warmup, total - warmup, warmup_target=0.02, warmup_steps=warmup
        )
    steps = range(total + 5)
    np.testing.assert_allclose(
        [float(ours(step)) for step in steps], [float(theirs(step)) for step in steps], rtol=1e-5, atol=1e-9
    )


def test_comes_back_from_its_configuration() -> None:
    schedule = WarmupCosine(0.02, total_steps=50, warmup_steps=10)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert isinstance(again, WarmupCosine)
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize("warmup", [-1, 50])
def test_warm_up_that_does_not_fit_is_refused(warmup: int) -> None:
    with pytest.raises(ValueError, match=r"warmup_steps is -?\d+: expected at least 0 and below total_steps 50"):
        WarmupCosine(0.02, total_steps=50, warmup_steps=warmup)


def test_cycles_double_in_length_and_rest_at_their_ends() -> None:
    schedule = LogCycles(0.2, total_steps=1_500)
    steps = np.arange(1_501)
    expected = 0.5 * 0.2 * (1.0 - np.cos(2.0 * np.pi * np.log2(1.0 + 15.0 * steps / 1_500)))
    np.testing.assert_allclose([float(schedule(step)) for step in steps[::50]], expected[::50], atol=1e-5)
    # Four cycles that end after 1, 3, 7 and 15 fifteenths.
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 100, 300, 700, 1_500, 9_999)], 0.0, atol=1e-6)
    assert max(float(schedule(step)) for step in range(700, 1_500, 10)) == pytest.approx(0.2, rel=1e-3)


def test_a_constant_is_followed_by_half_a_cosine() -> None:
    schedule = FlatCosine(2.0, total_steps=100)
    found = [float(schedule(step)) for step in (0, 25, 50, 75, 100, 200)]
    np.testing.assert_allclose(found, [2.0, 2.0, 2.0, 1.0, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("schedule", [LogCycles(0.1, total_steps=7, num_cycles=2), FlatCosine(0.5, total_steps=3)])
def test_schedules_come_back_from_their_configuration(schedule: LogCycles | FlatCosine) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()


def test_an_optimizer_tells_when_its_rate_is_over_and_whether_it_rests_in_between() -> None:
    cycles, cosine = LogCycles(0.1, total_steps=70), WarmupCosine(0.1, total_steps=30)
    found = [keras.optimizers.AdamW(rate) for rate in (cycles, cosine, 0.1)]
    found.append(keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(cycles)))
    assert [last_step(optimizer) for optimizer in found] == [70.0, 30.0, float("inf"), 70.0]
    assert [runs_in_cycles(optimizer) for optimizer in found] == [True, False, False, True]


@pytest.mark.parametrize(("step", "cycles"), [(1_500, 4), (700, 3), (720, 3), (300, 2), (20, 1)])
def test_cycles_can_come_to_rest_where_another_training_was_best(step: int, cycles: int) -> None:
    optimizer = keras.optimizers.AdamW(LogCycles(0.2, total_steps=1_500))
    rest_at(optimizer, step)
    schedule = optimizer._learning_rate
    assert (schedule.total_steps, schedule.num_cycles, schedule.peak) == (step, cycles, 0.2)
    assert float(schedule(step)) == pytest.approx(0.0, abs=1e-6)
    # Where that was at the end of a cycle, the rates before it are the same.
    if step == 700:
        before = LogCycles(0.2, total_steps=1_500)
        found = [float(schedule(s)) for s in range(0, 700, 35)]
        np.testing.assert_allclose(found, [float(before(s)) for s in range(0, 700, 35)], atol=1e-5)


def test_a_rate_without_cycles_stays_as_it_is() -> None:
    optimizer = keras.optimizers.AdamW(WarmupCosine(0.1, total_steps=30))
    rest_at(optimizer, 10)
    assert optimizer._learning_rate.total_steps == 30


def test_schedules_without_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"total_steps is 0 and num_cycles 4: expected at least 1 of each"):
        LogCycles(0.1, total_steps=0)
    with pytest.raises(ValueError, match=r"total_steps is 0: expected at least 1"):
        FlatCosine(0.1, total_steps=0)
