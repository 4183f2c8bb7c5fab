from __future__ import annotations

import numpy as np
import pytest

from search_spaces.layers.one_hot import OneHotColumns
from search_spaces.layers.selected_columns import SelectedColumns

IDS = np.array([[0, 3, 2], [1, 0, 3], [2, 4, 1]], np.int32)


def test_every_id_but_the_missing_one_has_a_column() -> None:
    layer = OneHotColumns((3, 5, 4))
    assert layer.widths == (2, 4, 3)
    expected = np.concatenate([np.eye(count)[IDS[:, c]][:, 1:] for c, count in enumerate((3, 5, 4))], axis=1)
    np.testing.assert_array_equal(np.asarray(layer(IDS)), expected)


def test_two_values_become_one_signed_column() -> None:
    layer = OneHotColumns((3, 5, 4), signed=True)
    assert layer.widths == (2, 4, 1)
    # Ids 2 and 3 are the values; 0 is missing, and 1 rare or unseen.
    np.testing.assert_array_equal(np.asarray(layer(IDS))[:, -1], [-1.0, 1.0, 0.0])


def test_columns_are_taken_in_the_order_asked_for() -> None:
    found = np.asarray(SelectedColumns((2, 0))(IDS))
    np.testing.assert_array_equal(found, IDS[:, [2, 0]])
    assert found.dtype == np.int32


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cardinalities are \(1,\): expected at least 2 a column"):
        OneHotColumns((1,))
    with pytest.raises(ValueError, match=r"columns are \(\): expected at least one position from 0"):
        SelectedColumns(())
