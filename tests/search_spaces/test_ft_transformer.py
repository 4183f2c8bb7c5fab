from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schema import Task
from search_spaces.catalogue import SpaceError
from search_spaces.context import TableContext, TableSample
from search_spaces.ft_transformer import (
    EPOCH_WORK,
    WIDTHS,
    FTTransformerSpace,
    block_work,
    widest_and_deepest,
)
from search_spaces.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding
from search_spaces.layers.quantile_normal import QuantileNormal
from search_spaces.layers.token_attention import TokenAttention

# Keras' own, on newer versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(12)
SAMPLE = TableSample(
    numeric=RNG.normal(size=(300, 3)).astype(np.float32),
    categorical=RNG.integers(0, 4, (300, 2)).astype(np.int32),
    target=RNG.integers(0, 2, (300, 1)).astype(np.int32),
)


def table(rows: int = 300, *, numbers: int = 3, sample: TableSample | None = None) -> TableContext:
    return TableContext(
        Task.BINARY, 2, numbers, (4, 6), num_training_rows=rows, max_epochs=5, num_replicas=1, sample=sample
    )


def declared(context: TableContext) -> dict[str, Any]:
    hp = keras_tuner.HyperParameters()
    FTTransformerSpace(context).declare_hyperparameters(hp)
    return {parameter.name: parameter for parameter in hp.space}


def built(context: TableContext, **values: Any) -> keras.Model:
    hp = keras_tuner.HyperParameters()
    hp.values = {"width": 32, "num_blocks": 2, "batch_size": 32, **values}
    return FTTransformerSpace(context).build(hp)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return built(
        table(sample=SAMPLE), numeric_embedding="piecewise", num_bins=8, bin_rule="target", residual_dropout=0.1
    )


@given(num_tokens=st.integers(2, 160), num_rows=st.integers(20, 10**6))
def test_the_largest_network_stays_within_the_work_of_an_epoch(num_tokens: int, num_rows: int) -> None:
    width, blocks = widest_and_deepest(num_tokens, num_rows)
    assert width in WIDTHS
    assert 1 <= blocks <= 4
    # The smallest network there is may cost more on a very large table, and nothing else may.
    smallest = (width, blocks) == (WIDTHS[0], 1)
    assert smallest or blocks * num_rows * block_work(num_tokens, width) <= 2 * EPOCH_WORK


def test_small_tables_start_at_the_authors_default_and_large_ones_below() -> None:
    small, large = declared(table(1_000)), declared(table(200_000))
    assert (small["width"].default, small["num_blocks"].default) == (192, 3)
    assert (small["attention_dropout"].default, small["hidden_dropout"].default) == (0.2, 0.1)
    assert small["hidden_factor"].default == pytest.approx(4 / 3)
    assert small["learning_rate"].default == 1e-4
    assert small["weight_decay"].default == 1e-5
    assert max(large["width"].values) < max(small["width"].values)
    assert large["num_blocks"].max_value <= small["num_blocks"].max_value


def test_a_table_of_categories_alone_has_no_embedding_of_numbers_to_choose() -> None:
    assert "numeric_embedding" in declared(table())
    assert "numeric_embedding" not in declared(table(numbers=0))


def test_the_first_attention_has_no_norm_and_the_last_answers_the_class_token_alone(model: keras.Model) -> None:
    attentions = [layer for layer in model.layers if isinstance(layer, TokenAttention)]
    assert [layer.queries.value for layer in attentions] == ["all", "first"]
    assert [layer.output.shape for layer in attentions] == [(None, 6, 32), (None, 1, 32)]
    # Whose tensor it takes: that of the class token itself, and that of a norm.
    first, second = (layer.input._keras_history.operation for layer in attentions)
    assert first.name == "class_token"
    assert isinstance(second, keras.layers.LayerNormalization)


def test_matrices_decay_and_tokens_norms_and_biases_do_not(model: keras.Model) -> None:
    decayed = {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables if model.optimizer._use_weight_decay(v)}
    assert decayed == {"kernel", "query_kernel", "pair_kernel", "output_kernel"}
    embedded = [v for v in model.trainable_variables if "piecewise" in v.path or "categorical" in v.path]
    assert embedded
    assert not any(model.optimizer._use_weight_decay(v) for v in embedded)


def test_quantiles_and_bins_are_learned_when_the_network_is_built(model: keras.Model) -> None:
    normal = next(layer for layer in model.layers if isinstance(layer, QuantileNormal))
    bins = next(layer for layer in model.layers if isinstance(layer, PiecewiseLinearEmbedding))
    alone = QuantileNormal()
    alone.adapt(SAMPLE.numeric)
    np.testing.assert_array_equal(np.asarray(normal.quantiles), np.asarray(alone.quantiles))
    np.testing.assert_allclose(np.asarray(normal.quantiles)[:, -1], SAMPLE.numeric.max(axis=0))
    ends = np.asarray(normal(SAMPLE.numeric))
    np.testing.assert_allclose(np.asarray(bins.edges)[:, 0], ends.min(axis=0), atol=1e-4)


def test_a_table_too_wide_for_attention_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"the table has 202 encoded columns: expected at most 160 .* --space resnet"):
        FTTransformerSpace(table(numbers=200))
