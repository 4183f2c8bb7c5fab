from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from pipelines.schema import Task
from search_spaces.catalogue import SpaceError
from search_spaces.context import TableContext
from search_spaces.losses import SmoothedCrossentropy
from search_spaces.user_space import (
    MAX_ONE_HOT,
    InputForm,
    answers_logits,
    arrange,
    checked_model,
    input_form,
    load_space,
    wants_one_hot,
)

layers = keras.layers
MODULE = '''
import keras_tuner

def build(hp):
    return ("built", hp)

class Own(keras_tuner.HyperModel):
    def build(self, hp):
        return "own"

class WithContext(keras_tuner.HyperModel):
    def __init__(self, context):
        super().__init__()
        self.context = context

    def build(self, hp):
        return self.context

class Demanding(keras_tuner.HyperModel):
    def __init__(self, units):
        super().__init__()

    def build(self, hp):
        return None

ready = Own()
number = 3

class NoSpace:
    pass
'''


def context(task: Task = Task.MULTICLASS) -> TableContext:
    num_classes = {Task.BINARY: 2, Task.MULTICLASS: 3}.get(task, 0)
    return TableContext(task, num_classes, 2, (3, MAX_ONE_HOT + 1), num_training_rows=100, max_epochs=5)


@pytest.fixture
def example() -> dict[str, tf.Tensor]:
    return {
        "numeric": tf.constant([[0.5, -1.0], [2.0, 3.0]]),
        "categorical": tf.constant([[2, 13], [0, 64]], tf.int32),
    }


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "module_of_spaces.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "module_of_spaces"


@pytest.mark.parametrize(("name", "built"), [("Own", "own"), ("ready", "own"), ("WithContext", context())])
def test_hypermodels_classes_and_instances_are_spaces(name: str, built: object, module: str) -> None:
    space = load_space(f"{module}:{name}", context())
    assert isinstance(space, keras_tuner.HyperModel)
    assert space.build(keras_tuner.HyperParameters()) == built


def test_a_build_function_is_a_space(module: str) -> None:
    hp = keras_tuner.HyperParameters()
    assert load_space(f"{module}:build", context()).build(hp) == ("built", hp)


@pytest.mark.parametrize(("name", "kind"), [("number", "int"), ("NoSpace", "type")])
def test_what_is_no_space_is_refused(name: str, kind: str, module: str) -> None:
    with pytest.raises(SpaceError, match=rf"is a {kind}: expected a function build\(hp\) or a HyperModel"):
        load_space(f"{module}:{name}", context())


def test_a_hypermodel_that_needs_arguments_is_refused(module: str) -> None:
    with pytest.raises(SpaceError, match=r"cannot create module_of_spaces:Demanding: .*'units'; expected a HyperModel"):
        load_space(f"{module}:Demanding", context())


def test_the_matrix_is_numbers_then_one_hot_then_ranks(example: dict[str, tf.Tensor]) -> None:
    matrix = arrange(example, InputForm.MATRIX, context()).numpy()
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, [[0.5, -1.0, 0, 0, 1, 13 / 65], [2.0, 3.0, 1, 0, 0, 64 / 65]])


def test_columns_are_the_kinds_that_the_table_has(example: dict[str, tf.Tensor]) -> None:
    assert arrange(example, InputForm.COLUMNS, context()) == example
    numbers = TableContext(Task.BINARY, 2, 2, (), 100, 5)
    assert set(arrange(example, InputForm.COLUMNS, numbers)) == {"numeric"}


def own_loss(y: Any, output: Any) -> Any:  # noqa: ARG001
    return keras.ops.mean(output)


def matrix_network(*last: Any) -> keras.Model:
    return keras.Sequential([layers.Dense(4), *last])


def subclassed(last: Any) -> keras.Model:
    class Network(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.last = last
            self.first = layers.Dense(4, activation="sigmoid")

        def call(self, inputs: Any) -> Any:
            return self.last(self.first(inputs))

    return Network()


def dictionary_network(num_outputs: int = 3) -> keras.Model:
    inputs = {"numeric": keras.Input((2,), name="numeric"), "categorical": keras.Input((2,), name="categorical")}
    return keras.Model(inputs, layers.Dense(num_outputs)(layers.Concatenate()(list(inputs.values()))))


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS])
def test_an_uncompiled_model_gets_the_loss_of_its_output(
    task: Task, logits: bool, example: dict[str, tf.Tensor]
) -> None:
    table = context(task)
    activation = {True: None, False: "sigmoid" if task is Task.BINARY else "softmax"}[logits]
    model, width = checked_model(
        matrix_network(layers.Dense(table.num_outputs, activation=activation)), example=example, context=table
    )
    assert width == table.num_outputs
    assert answers_logits(model, task) is logits
    y = np.array([[1], [0]], np.int32)
    output = model(arrange(example, InputForm.MATRIX, table))
    loss = float(model.compute_loss(y=y, y_pred=output))
    probabilities = output if not logits else (tf.sigmoid if task is Task.BINARY else tf.nn.softmax)(output)
    true = probabilities.numpy()[[0, 1], [1, 0]] if width > 1 else np.abs([0.0, 1.0] - probabilities.numpy()[:, 0])
    assert loss == pytest.approx(-np.log(true).mean(), rel=1e-3)


def test_a_model_compiled_without_a_loss_keeps_its_optimizer(example: dict[str, tf.Tensor]) -> None:
    built = matrix_network(layers.Dense(3))
    built.compile(optimizer=keras.optimizers.SGD(0.5))
    model, _ = checked_model(built, example=example, context=context())
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert isinstance(model.loss, SmoothedCrossentropy)


def test_a_compiled_model_is_left_as_it_is(example: dict[str, tf.Tensor]) -> None:
    built = matrix_network(layers.Dense(3, activation="softmax"))
    built.compile(optimizer="adam", loss="categorical_crossentropy")
    model, width = checked_model(built, example=example, context=context())
    assert (model.loss, width) == ("categorical_crossentropy", 3)
    assert input_form(model) is InputForm.MATRIX


def test_a_dictionary_model_takes_the_columns_and_a_subclassed_one_the_matrix(example: dict[str, tf.Tensor]) -> None:
    model, width = checked_model(dictionary_network(), example=example, context=context())
    assert (input_form(model), width) == (InputForm.COLUMNS, 3)
    model, width = checked_model(subclassed(layers.Dense(3)), example=example, context=context())
    assert (input_form(model), width) == (InputForm.MATRIX, 3)


@pytest.mark.parametrize("width", [1, 2])
def test_two_classes_may_have_one_output_or_two(width: int, example: dict[str, tf.Tensor]) -> None:
    _, found = checked_model(matrix_network(layers.Dense(width)), example=example, context=context(Task.BINARY))
    assert found == width


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: None, r"the space returned NoneType: expected build\(hp\) to return a keras.Model"),
        (lambda: matrix_network(layers.Dense(7)), r"output is \(2, 7\): expected \(batch, 3\) for multiclass"),
        (lambda: matrix_network(layers.Dense(3), layers.Reshape((3, 1))), r"output is \(2, 3, 1\): expected \(batch"),
        (
            lambda: keras.Sequential([keras.Input((5,)), layers.Dense(3)]),
            r"does not take the encoded table of shape \(2, 6\)",
        ),
        (
            lambda: keras.Model(x := keras.Input((6,)), [layers.Dense(3)(x), layers.Dense(3)(x)]),
            r"output is list: expected \(batch, 3\)",
        ),
    ],
)
def test_an_unusable_model_is_refused(
    build: Callable[[], Any], message: str, example: dict[str, tf.Tensor]
) -> None:
    with pytest.raises(SpaceError, match=message):
        checked_model(build(), example=example, context=context())


@pytest.mark.parametrize(
    ("last", "logits"),
    [
        (layers.Dense, True),
        (lambda units: layers.Dense(units, activation="softmax"), False),
        (lambda units: keras.Sequential([layers.Dense(units), layers.Softmax()]), False),
        (lambda units: keras.Sequential([layers.Dense(units), layers.Activation("sigmoid")]), False),
    ],
)
def test_the_end_of_a_functional_model_says_whether_it_answers_logits(
    last: Callable[[int], Any], logits: bool, example: dict[str, tf.Tensor]
) -> None:
    model, _ = checked_model(matrix_network(last(3)), example=example, context=context())
    assert answers_logits(model, Task.MULTICLASS) is logits


@pytest.mark.parametrize(("outputs", "raw"), [(1, True), (3, False)])
def test_the_quantiles_of_another_loss_are_taken_as_they_are(outputs: int, raw: bool) -> None:
    model = keras.Sequential([layers.Input((2,)), layers.Dense(outputs)])
    model.compile(loss="mse")
    assert answers_logits(model, Task.REGRESSION) is raw


@pytest.mark.parametrize(
    ("loss", "logits"),
    [
        (None, True),
        ("sparse_categorical_crossentropy", False),
        ("CategoricalCrossentropy", False),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), True),
        (keras.losses.KLDivergence(), False),
        (own_loss, True),
    ],
)
def test_the_loss_of_a_subclassed_model_says_whether_it_answers_logits(loss: Any, logits: bool) -> None:
    model = subclassed(layers.Dense(3))
    if loss is not None:
        model.compile(loss=loss)
    assert answers_logits(model, Task.MULTICLASS) is logits


@pytest.mark.parametrize(
    ("loss", "num_outputs", "one_hot"),
    [
        ("categorical_crossentropy", 3, True),
        (keras.losses.CategoricalCrossentropy(), 3, True),
        (keras.losses.KLDivergence(), 3, True),
        ("binary_crossentropy", 3, True),
        ("mse", 3, True),
        ("binary_crossentropy", 1, False),
        ("sparse_categorical_crossentropy", 3, False),
        (keras.losses.SparseCategoricalCrossentropy(), 3, False),
        (SmoothedCrossentropy(0.1), 3, False),
        (own_loss, 3, False),
    ],
)
def test_a_loss_over_several_outputs_gets_the_target_it_takes(loss: Any, num_outputs: int, one_hot: bool) -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(num_outputs)])
    model.compile(loss=loss)
    assert wants_one_hot(model, num_outputs) is one_hot
