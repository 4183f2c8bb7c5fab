from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schema import Task
from search_spaces.answers import AnswerForm

LOGITS = np.random.default_rng(2).normal(0.0, 3.0, (50, 3)).astype(np.float32)
CLASSES = ("high", "low", "middle")
WEIGHTS = (4.0, 0.5, 1.25)


def multiclass(**changes: object) -> AnswerForm:
    return AnswerForm(task=Task.MULTICLASS, classes=CLASSES, **changes)  # type: ignore[arg-type]


def predicted(form: AnswerForm, output: np.ndarray) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in form.predictions(output).items()}


def test_probabilities_sum_to_one_and_the_label_is_the_most_probable_class() -> None:
    found = predicted(multiclass(), LOGITS)
    np.testing.assert_allclose(found["probabilities"], scipy.special.softmax(LOGITS, axis=1), atol=1e-6)
    np.testing.assert_array_equal(found["label_ids"], LOGITS.argmax(axis=1))
    assert (found["probabilities"].dtype, found["label_ids"].dtype) == (np.float32, np.int32)


def test_class_weights_are_divided_out_of_the_probabilities_and_decide_the_label() -> None:
    found = predicted(multiclass(class_weights=WEIGHTS), LOGITS)
    reweighted = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    true_prior = reweighted / np.array(WEIGHTS)
    true_prior /= true_prior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], true_prior, atol=1e-6)
    np.testing.assert_array_equal(found["label_ids"], reweighted.argmax(axis=1))
    assert (found["label_ids"] != true_prior.argmax(axis=1)).any()


@pytest.mark.parametrize("weights", [(), (0.6, 3.0)])
def test_one_logit_is_the_same_as_two(weights: tuple[float, ...]) -> None:
    form = AnswerForm(task=Task.BINARY, classes=("no", "yes"), class_weights=weights)
    one = predicted(form, LOGITS[:, :1])
    two = predicted(form, np.concatenate([np.zeros((50, 1), np.float32), LOGITS[:, :1]], axis=1))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_a_network_that_answers_probabilities_gives_the_same_as_its_logits(weights: tuple[float, ...]) -> None:
    probabilities = scipy.special.softmax(LOGITS, axis=1)
    from_logits = predicted(multiclass(class_weights=weights), LOGITS)
    from_probabilities = predicted(multiclass(class_weights=weights, logits=False), probabilities)
    np.testing.assert_allclose(from_probabilities["probabilities"], from_logits["probabilities"], atol=2e-6)
    np.testing.assert_array_equal(from_probabilities["label_ids"], from_logits["label_ids"])


def test_a_sigmoid_is_the_probability_of_the_second_class() -> None:
    form = AnswerForm(task=Task.BINARY, classes=("no", "yes"), logits=False)
    found = predicted(form, np.array([[0.0], [0.2], [0.7], [1.0]], np.float32))
    np.testing.assert_allclose(found["probabilities"][:, 1], [0.0, 0.2, 0.7, 1.0], atol=2e-7)
    np.testing.assert_array_equal(found["label_ids"], [0, 0, 1, 1])


@settings(deadline=None, max_examples=50)
@given(value=st.floats(-(2.0**100), 2.0**100, width=32), logits=st.booleans())
def test_answers_are_finite_for_every_finite_output(value: float, logits: bool) -> None:
    form = AnswerForm(task=Task.BINARY, classes=("no", "yes"), logits=logits, class_weights=(1.0, 900.0))
    found = predicted(form, np.array([[value]], np.float32))["probabilities"]
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1.0, abs=1e-6)


def test_half_precision_outputs_are_answered_in_float32() -> None:
    found = predicted(multiclass(), LOGITS.astype(np.float16))
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1.0, atol=1e-6)


def test_the_exported_answer_has_labels_as_text() -> None:
    answer = multiclass().answer(LOGITS)
    assert set(answer) == {"probabilities", "label"}
    labels = [label.decode() for label in answer["label"].numpy()]
    assert labels == [CLASSES[index] for index in LOGITS.argmax(axis=1)]


def test_a_regression_answers_in_the_users_units() -> None:
    form = AnswerForm(task=Task.REGRESSION, target_mean=200.0, target_scale=50.0)
    output = np.array([[0.0], [1.0], [-2.0]], np.float32)
    np.testing.assert_allclose(form.answer(output)["prediction"], [200.0, 250.0, 100.0])
    np.testing.assert_allclose(predicted(form, output)["values"], [200.0, 250.0, 100.0])


@settings(max_examples=30)
@given(
    task=st.sampled_from([Task.BINARY, Task.MULTICLASS, Task.REGRESSION]),
    classes=st.lists(st.text(), max_size=4),
    weights=st.lists(st.floats(1e-6, 1e6), max_size=4),
    mean=st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_form_comes_back_from_json_as_it_was(
    task: Task, classes: list[str], weights: list[float], mean: float
) -> None:
    form = AnswerForm(
        task=task,
        classes=tuple(classes),
        logits=False,
        class_weights=tuple(weights),
        target_mean=mean,
        target_scale=0.1,
    )
    assert AnswerForm.from_json(json.loads(json.dumps(form.to_json()))) == form
