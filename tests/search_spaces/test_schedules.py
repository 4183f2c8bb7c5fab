from __future__ import annotations

import keras
import numpy as np
import pytest

from search_spaces.schedules import WarmupCosine


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
