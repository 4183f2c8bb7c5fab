"""Which targets can be balanced, and what the command line takes for it."""

from __future__ import annotations

import pytest

from app.arguments import SearchArguments, experiment_config
from app.config import Balance, ExperimentConfig, TrainingConfig
from app.errors import ConfigError
from app.search_stage import check_goals
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task

NUMBER = FeatureSpec("x", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="")


def checked(target: TargetSpec, balance: Balance) -> None:
    config = ExperimentConfig(training=TrainingConfig(balance=balance))
    check_goals(config, DatasetSchema(features=(NUMBER,), target=target))


@pytest.mark.parametrize("balance", [one for one in Balance if one not in (Balance.AUTO, Balance.NONE)])
def test_targets_without_classes_cannot_be_balanced(balance: Balance) -> None:
    number = TargetSpec("y", task=Task.REGRESSION, reason="numbers with decimals")
    labels = TargetSpec("a, b", task=Task.MULTILABEL, classes=("a", "b"), columns=("a", "b"), reason="2 columns")
    for target in (number, labels):
        with pytest.raises(ConfigError, match=f"balance is '{balance}' and the target has no classes to balance"):
            checked(target, balance)
        checked(target, Balance.AUTO)
    checked(TargetSpec("y", task=Task.BINARY, classes=("n", "y")), balance)


def test_the_balance_is_a_setting() -> None:
    assert experiment_config(SearchArguments(target="y", balance="undersample")).training.balance is Balance.UNDERSAMPLE
    base = ExperimentConfig(training=TrainingConfig(balance=Balance.SEARCH))
    assert experiment_config(SearchArguments(target="y"), base=base).training.balance is Balance.SEARCH
    with pytest.raises(ConfigError, match=r"balance is 'oversampel' \(did you mean 'oversample'\?\)"):
        experiment_config(SearchArguments(target="y", balance="oversampel"))
