from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.term_sum import TermSum

TERMS = np.random.default_rng(5).normal(size=(7, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 12)])
def test_each_output_is_the_sum_of_the_columns_terms_and_a_constant(shape: tuple[int, ...]) -> None:
    layer = TermSum(3)
    layer.build(shape)
    layer.bias.assign([1.0, -2.0, 0.5])
    expected = TERMS.sum(axis=1) + np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(np.asarray(layer(TERMS.reshape(shape))), expected, rtol=1e-5, atol=1e-5)


def test_no_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_outputs is 0: expected at least 1"):
        TermSum(0)
