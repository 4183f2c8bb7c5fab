"""Warm-up requests that come with an export (imports TensorFlow).

TensorFlow Serving replays ``assets.extra/tf_serving_warmup_requests`` before a version is available, so that the first
user does not pay for the first run of the graph. A failing record fails the load: only real rows are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from pipelines.schema import FeatureSpec, RawType
from tf_serving.signatures import CLASSIFY, REGRESS, SERVING_DEFAULT

Column = NDArray[Any]

WARMUP_FILE = "tf_serving_warmup_requests"
WARMUP_BATCH_SIZES = (1, 32)


def write_warmup_requests(
    path: Path,
    *,
    model_name: str,
    features: Sequence[FeatureSpec],
    sample: Mapping[str, Column],
    signatures: Sequence[str],
) -> None:
    """Write a TFRecord of PredictionLog, batches of 1 and of 32 rows for each signature.

    Args:
        path: File to write.
        model_name: Name under which the model is served.
        features: The used features.
        sample: Raw columns by name, each (num_rows,) with at least one row; repeated where there are too few.
        signatures: Names among serving_default, classify, regress.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in WARMUP_BATCH_SIZES:
            rows = {feature.name: np.resize(sample[feature.name], size) for feature in features}
            for signature in signatures:
                spec = model_pb2.ModelSpec(name=model_name, signature_name=signature)
                writer.write(_LOGS[signature](spec, features, rows).SerializeToString())


def _example(features: Sequence[FeatureSpec], rows: Mapping[str, Column], index: int) -> Any:
    example = tf.train.Example()
    for feature in features:
        value = rows[feature.name][index]
        if feature.raw_type is RawType.STRING:
            if value != b"":
                example.features.feature[feature.name].bytes_list.value.append(value)
        elif not np.isnan(value):
            if feature.integer:
                example.features.feature[feature.name].int64_list.value.append(int(value))
            else:
                example.features.feature[feature.name].float_list.value.append(value)
    return example


def _predict_log(spec: Any, features: Sequence[FeatureSpec], rows: Mapping[str, Column]) -> Any:
    request = predict_pb2.PredictRequest(model_spec=spec)
    for feature in features:
        dtype = tf.float32 if feature.raw_type is RawType.FLOAT32 else tf.string
        request.inputs[feature.name].CopyFrom(tf.make_tensor_proto(rows[feature.name], dtype=dtype))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _classify_log(spec: Any, features: Sequence[FeatureSpec], rows: Mapping[str, Column]) -> Any:
    request = classification_pb2.ClassificationRequest(model_spec=spec, input=_input(features, rows))
    return prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=request))


def _regress_log(spec: Any, features: Sequence[FeatureSpec], rows: Mapping[str, Column]) -> Any:
    request = regression_pb2.RegressionRequest(model_spec=spec, input=_input(features, rows))
    return prediction_log_pb2.PredictionLog(regress_log=prediction_log_pb2.RegressLog(request=request))


def _input(features: Sequence[FeatureSpec], rows: Mapping[str, Column]) -> Any:
    num_rows = len(next(iter(rows.values())))
    examples = [_example(features, rows, index) for index in range(num_rows)]
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))


_LOGS = {SERVING_DEFAULT: _predict_log, CLASSIFY: _classify_log, REGRESS: _regress_log}
