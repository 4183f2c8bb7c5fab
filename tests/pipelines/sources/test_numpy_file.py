from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.sources import open_source


@pytest.mark.parametrize("dtype", ["complex64", "timedelta64[D]"])
def test_values_of_which_no_column_can_be_made_are_told(dtype: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros(2), odd=np.zeros(2, dtype))
    with pytest.raises(DataError, match=r"but 'odd' is \S+; convert or drop the array"):
        open_source(tmp_path / "rows.npz").read()
