"""What a balance of classes comes to: the prior that is divided out, the rows of an epoch, and what is refused."""

from __future__ import annotations

import keras_tuner
import numpy as np
import pytest

from app.evaluation.baselines import EncodedRows
from app.training.class_balance import ClassBalance, class_balance
from pipelines.balance import BALANCE, SEARCHED, Balance
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task
from search_spaces.catalogue import SpaceError, load_attribute
from search_spaces.context import TableContext

NUMBER = FeatureSpec("x", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="")
SCHEMA = DatasetSchema(features=(NUMBER,), target=TargetSpec("y", task=Task.BINARY, classes=("n", "y")))


def rows(*, weights: np.ndarray | None = None) -> EncodedRows:
    y = np.repeat([0, 1], [90, 10])
    return EncodedRows(numeric=np.zeros((100, 1)), categorical=np.zeros((100, 0), int), y=y, weights=weights)


def test_drawn_rows_have_the_prior_of_their_classes_whatever_they_weigh() -> None:
    given = np.where(rows().y == 1, 3.0, 1.0)
    for weights in (None, given):
        balance = class_balance(SCHEMA, rows(weights=weights), Balance.SEARCH)
        for kind in (Balance.OVERSAMPLE, Balance.UNDERSAMPLE):
            assert balance.asked(kind) == pytest.approx((50 / 90, 5.0))
        assert balance.asked(Balance.NONE) == ()
    # Weights of the user change how frequent a class counts: 90 to 30.
    assert class_balance(SCHEMA, rows(weights=given), Balance.WEIGHTS).asked(Balance.WEIGHTS) == pytest.approx(
        (60 / 90, 2.0)
    )


def test_the_automatic_balance_weighs_only_rare_classes() -> None:
    assert class_balance(SCHEMA, rows(), Balance.AUTO) == ClassBalance()
    rare = EncodedRows(numeric=np.zeros((99, 1)), categorical=np.zeros((99, 0), int), y=np.repeat([0, 1], [95, 4]))
    assert class_balance(SCHEMA, rare, Balance.AUTO).kind is Balance.WEIGHTS
    number = DatasetSchema(features=(NUMBER,), target=TargetSpec("y", task=Task.REGRESSION))
    assert class_balance(number, rows(), Balance.AUTO) == ClassBalance()


def test_an_epoch_of_under_sampling_is_shorter() -> None:
    balance = class_balance(SCHEMA, rows(), Balance.UNDERSAMPLE)
    assert balance.epoch_rows(1_000, balance.kind) == 200
    assert balance.epoch_rows(1_000, Balance.OVERSAMPLE) == 1_000
    assert balance.epoch_share(Balance.UNDERSAMPLE) == pytest.approx(0.2)
    assert balance.epoch_share(Balance.OVERSAMPLE) == ClassBalance().epoch_share(Balance.NONE) == 1.0


def test_what_cannot_be_balanced_is_refused() -> None:
    balance = class_balance(SCHEMA, rows(), Balance.SEARCH)
    assert balance.labels(rows(), Balance.WEIGHTS) is None
    with pytest.raises(SpaceError, match=r"'mine:build' has no hyperparameter 'balance' to search: ask hp\.Choice"):
        balance.check_searched(("width",), space="mine:build")
    balance.check_searched(("width", BALANCE), space="mine:build")


@pytest.mark.parametrize("space", ["search_spaces.tabular:MLPSpace", "search_spaces.families:FamiliesSpace"])
@pytest.mark.parametrize("searched", [False, True])
def test_a_space_has_the_balance_where_it_is_searched(space: str, searched: bool) -> None:
    context = TableContext(
        task=Task.BINARY, num_classes=2, num_numeric=1, cardinalities=(), num_training_rows=100, max_epochs=5,
        searches_balance=searched,
    )  # fmt: skip
    hp = keras_tuner.HyperParameters()
    load_attribute(space)(context).declare_hyperparameters(hp)  # type: ignore[operator]
    assert (BALANCE in hp.values) is searched
    if searched:
        assert next(one for one in hp.space if one.name == BALANCE).values == [kind.value for kind in SEARCHED]
