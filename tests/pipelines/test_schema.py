from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.schema import DatasetSchema, FeatureKind, FeatureSpec, RawType, TargetSpec, Task

FEATURES = st.builds(
    FeatureSpec,
    name=st.text(min_size=1),
    kind=st.sampled_from(FeatureKind),
    raw_type=st.sampled_from(RawType),
    reason=st.text(),
    used=st.booleans(),
    integer=st.booleans(),
    datetime_format=st.none() | st.text(),
)
TARGETS = st.builds(
    TargetSpec,
    name=st.text(min_size=1),
    task=st.sampled_from(Task),
    classes=st.lists(st.text(), max_size=4).map(tuple),
    reason=st.text(),
)
SCHEMAS = st.builds(
    DatasetSchema,
    features=st.lists(FEATURES, max_size=4).map(tuple),
    target=TARGETS,
    group=st.none() | st.text(),
    time_column=st.none() | st.text(),
)


@settings(deadline=None, max_examples=50)
@given(SCHEMAS)
def test_json_round_trip_is_exact(schema: DatasetSchema) -> None:
    assert DatasetSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def _schema() -> DatasetSchema:
    age = FeatureSpec(name="age", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="")
    note = FeatureSpec(name="note", kind=FeatureKind.TEXT, raw_type=RawType.STRING, reason="", used=False)
    target = TargetSpec(name="y", task=Task.BINARY, classes=("no", "yes"))
    return DatasetSchema(features=(age, note), target=target)


def test_dropped_features_are_kept_but_not_used() -> None:
    schema = _schema()
    assert [feature.name for feature in schema.used_features] == ["age"]
    assert schema.num_classes == 2
    assert Task.BINARY.is_classification
    assert not Task.REGRESSION.is_classification


def test_unknown_field_is_refused_with_the_nearest_name() -> None:
    record = _schema().to_json() | {"grupo": None}
    with pytest.raises(DataError, match=r"DatasetSchema has no field 'grupo'\. Did you mean 'group'\?"):
        DatasetSchema.from_json(record)


def test_missing_field_is_refused() -> None:
    record = _schema().to_json()
    del record["target"]
    with pytest.raises(DataError, match="DatasetSchema lacks the field 'target'"):
        DatasetSchema.from_json(record)


def test_unknown_kind_is_refused_with_the_nearest_kind() -> None:
    record = _schema().features[0].to_json() | {"kind": "numerical"}
    with pytest.raises(DataError, match=r"received 'numerical'\. Did you mean 'numeric'\?"):
        FeatureSpec.from_json(record)


def test_something_that_is_no_object_is_refused() -> None:
    with pytest.raises(DataError, match="Expected a JSON object for TargetSpec, received list"):
        TargetSpec.from_json([])  # type: ignore[arg-type]
