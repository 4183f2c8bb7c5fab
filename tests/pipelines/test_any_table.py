"""Any table of the supported types survives the way from its source over the schema to what the encoder is fed."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.inference import infer_features
from pipelines.preprocessing import fit_preprocessing
from pipelines.raw_columns import raw_columns
from pipelines.schema import TargetSpec, Task
from pipelines.sources import open_source

_TYPES = {
    "size": (pa.float64(), st.floats(-1e6, 1e6)),
    "rooms": (pa.int64(), st.integers(-(2**40), 2**40)),
    "garden": (pa.bool_(), st.booleans()),
    "city": (pa.string(), st.sampled_from(["Oslo", "São Paulo", "a, b", "x y"])),
    "built": (pa.timestamp("us"), st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2050, 1, 1))),
}
_ROWS = st.lists(st.tuples(*(st.none() | values for _, values in _TYPES.values())), min_size=8, max_size=40)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_ROWS)
@example(rows=[(None,) * 5] * 7 + [(None, None, None, None, datetime.datetime(1969, 1, 1, 23, 59, 59, 1))])
def test_stores_give_one_schema_one_encoding_and_every_row(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    columns = list(zip(*rows, strict=True))
    table = pa.table(
        {name: pa.array(column, kind) for (name, (kind, _)), column in zip(_TYPES.items(), columns, strict=True)}
        | {"floor": [row % 7 + 0.5 for row in range(len(rows))], "y": pa.array(range(len(rows)), pa.float64())}
    )
    table.to_pandas().to_parquet(tmp_path / "rows.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    target = TargetSpec("y", task=Task.REGRESSION)
    found = []
    for source in (table, str(tmp_path / "rows.parquet"), str(tmp_path / "rows.csv")):
        read = open_source(source).read().table
        assert read.num_rows == len(rows)
        assert read.column("y").to_pylist() == list(range(len(rows)))
        schema = infer_features(read, target)
        kinds = {feature.name: feature.kind for feature in schema.used_features}
        state = fit_preprocessing(read, schema, rows=np.ones(len(rows), bool))
        # Of dates, stores keep other texts for the same instant; how they are encoded stands in the state.
        raw = {name: values for name, values in raw_columns(read, schema).items() if name != "built"}
        found.append((kinds, state.to_json(), raw))
    (kinds, state, raw), *others = found
    for other_kinds, other_state, other_raw in others:
        assert other_kinds == kinds
        assert other_state == state
        assert list(other_raw) == list(raw)
        for name, values in raw.items():
            np.testing.assert_array_equal(other_raw[name], values)
