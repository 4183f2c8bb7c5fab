"""The request that comes with an export, for people to try the model with (no TensorFlow here)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.schema import FeatureKind, FeatureSpec, RawType

SAMPLE_FILE = "sample_request.json"
NUM_SAMPLE_ROWS = 2


def sample_request(features: Sequence[FeatureSpec], sample: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the JSON body of a predict request with two rows.

    Args:
        features: The used features.
        sample: Raw columns by name, each (num_rows,) with at least one row.
    """
    instances = sample_instances(features, sample, num_rows=NUM_SAMPLE_ROWS)
    return json.dumps({"instances": instances}, indent=1, ensure_ascii=False).encode() + b"\n"


def sample_instances(
    features: Sequence[FeatureSpec], sample: Mapping[str, NDArray[Any]], *, num_rows: int
) -> list[dict[str, Any]]:
    """Return the first rows as a predict request holds them.

    TensorFlow Serving refuses null, takes the bare token NaN for a missing number, and bytes that are no UTF-8 as
    base64.

    Args:
        features: The used features.
        sample: Raw columns by name, each (num_rows,).
        num_rows: Rows at most.
    """
    found = min(num_rows, len(next(iter(sample.values()), ())))
    return [
        {feature.name: _json_value(sample[feature.name][row], feature) for feature in features}
        for row in range(found)
    ]


def _json_value(value: Any, feature: FeatureSpec) -> Any:
    if feature.kind is FeatureKind.IMAGE:
        return {"b64": base64.b64encode(value).decode()}
    if feature.raw_type is RawType.STRING:
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if feature.integer and np.isfinite(value):
        return int(value)
    return float(str(np.float32(value)))  # 0.1, not 0.10000000149011612
