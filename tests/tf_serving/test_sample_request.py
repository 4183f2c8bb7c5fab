from __future__ import annotations

import json

import numpy as np

from pipelines.schema import FeatureKind, FeatureSpec, RawType
from tf_serving.sample_request import sample_instances, sample_request

FEATURES = (
    FeatureSpec(name="island", kind=FeatureKind.CATEGORICAL, raw_type=RawType.STRING, reason="made for a test"),
    FeatureSpec(name="bill", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="made for a test"),
    FeatureSpec(
        name="year", kind=FeatureKind.NUMERIC, raw_type=RawType.FLOAT32, reason="made for a test", integer=True
    ),
)


def rows() -> dict[str, np.ndarray]:
    return {
        "year": np.array([2007, np.nan, 2009], dtype=np.float32),
        "bill": np.array([0.1, np.nan, 40.5], dtype=np.float32),
        "island": np.array([b"Bisco\xc3\xa9", b"", b"\xff\x00"], dtype=object),
    }


def test_numbers_are_written_as_people_wrote_them() -> None:
    (instance,) = sample_instances(FEATURES, rows(), num_rows=1)
    assert json.dumps(instance, ensure_ascii=False) == '{"island": "Biscoé", "bill": 0.1, "year": 2007}'


def test_missing_values_are_nan_and_empty_text() -> None:
    text = json.dumps(sample_instances(FEATURES, rows(), num_rows=2)[1])
    assert text == '{"island": "", "bill": NaN, "year": NaN}'


def test_bytes_that_are_no_text_are_base64() -> None:
    assert sample_instances(FEATURES, rows(), num_rows=3)[2]["island"] == {"b64": "/wA="}


def test_a_request_has_two_rows_or_what_there_is() -> None:
    request = json.loads(sample_request(FEATURES, rows()))
    assert len(request["instances"]) == 2
    one = {name: column[:1] for name, column in rows().items()}
    assert len(json.loads(sample_request(FEATURES, one))["instances"]) == 1
    none = {name: column[:0] for name, column in rows().items()}
    assert sample_instances(FEATURES, none, num_rows=1) == []
