from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.schema import Task
from search_spaces.context import TableContext

# Keras' own, on newer versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ENCODED = {0: {"numeric": np.zeros((3, 2), np.float32)}}


def constant_network(logits: list[float], *, temperature: float = 1.0, **form: Any) -> Any:
    """A network that answers every row with the same logits."""
    import keras

    from app.training.averaged_networks import AveragedNetworks, WeightedNetwork
    from search_spaces.answers import AnswerForm

    bias = keras.initializers.Constant(np.asarray(logits))
    numbers = keras.Input((2,), name="numeric")
    dense = keras.layers.Dense(len(logits), kernel_initializer="zeros", bias_initializer=bias)
    model = keras.Model({"numeric": numbers}, dense(numbers))
    network = WeightedNetwork(model=model, answers=AnswerForm(**form), file="model.keras", trial=0)
    context = TableContext(form["task"], len(form["classes"]), 2, (), num_training_rows=9, max_epochs=1)
    return AveragedNetworks(networks=(network,), temperature=temperature, context=context)


def test_each_of_several_labels_is_as_far_from_its_other_value_as_from_one_half() -> None:
    names, pairs = ("late", "lost"), (("no", "yes"), ("no", "yes"))
    form = {"task": Task.MULTILABEL, "classes": names, "outputs": names, "label_values": pairs}
    found = constant_network([0.0, 2.0], **form).distances(ENCODED)
    assert found["late"] == pytest.approx([0.0] * 3)
    assert found["lost"] == pytest.approx([1.0 / (1.0 + np.exp(-2.0)) - 0.5] * 3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_weighted_classes_tie_where_their_weighted_probabilities_are_equal(temperature: float) -> None:
    form = {"task": Task.BINARY, "classes": ("often", "rare"), "class_weights": (1.0, 9.0)}
    tied = constant_network([0.0], temperature=temperature, **form)
    assert np.ptp(tied.predicted(ENCODED)["probabilities"][0]) > 0.1
    assert tied.distances(ENCODED)["label"] == pytest.approx([0.0] * 3, abs=1e-6)
    far = constant_network([1.0], temperature=temperature, **form)
    assert far.distances(ENCODED)["label"] == pytest.approx([np.tanh(0.5)] * 3, rel=1e-5)


def test_of_classes_that_weigh_the_same_the_probabilities_say_it() -> None:
    form = {"task": Task.BINARY, "classes": ("no", "yes")}
    assert constant_network([0.3], **form).distances(ENCODED) == {}
