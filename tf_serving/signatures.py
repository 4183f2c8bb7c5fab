"""The SavedModel's signatures (imports TensorFlow): raw columns by their exact names, and tf.Example.

TensorFlow turns a signature's keys into Python parameters and operation names, which neither "work class" nor "lambda"
nor two columns "a.b" and "a b" survive. The graph is therefore traced with names TensorFlow accepts, and the keys in
saved_model.pb are set to the column names afterwards. They are what TensorFlow Serving and saved_model_cli read.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from pipelines.schema import FeatureSpec, RawType

Answer = Callable[[dict[str, Any]], dict[str, Any]]

SERVING_DEFAULT = "serving_default"
CLASSIFY = "classify"
REGRESS = "regress"
PIXELS = "pixels"
METHOD_NAMES = {
    SERVING_DEFAULT: "tensorflow/serving/predict",
    CLASSIFY: "tensorflow/serving/classify",
    REGRESS: "tensorflow/serving/regress",
    PIXELS: "tensorflow/serving/predict",
}


def parameter_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return a parameter name TensorFlow can trace for each column.

    Ordinary names are cleaned as TensorFlow cleans keywords, so that the loaded function takes the column names as
    keywords. Where a name cannot be a parameter, or two would become one, all are numbered instead; the loaded
    function then takes the columns by position too, in this order.

    Args:
        columns: Distinct names, none empty.

    Raises:
        ValueError: A name is empty or there twice, or there are no columns.
    """
    if not columns or "" in columns or len(set(columns)) != len(columns):
        raise ValueError(
            f"Expected distinct, non-empty column names for the export, received {list(columns)}; rename the columns."
        )
    cleaned = tuple(_cleaned(column) for column in columns)
    # Operation names fold case and everything but ASCII letters and digits.
    folded = {re.sub(r"[^a-z0-9]", "_", name.lower()) for name in cleaned}
    if len(folded) == len(columns) and all(_is_parameter(name) for name in cleaned):
        return cleaned
    # A prefix that no column has: TensorFlow must not take a column's name for the number of another one.
    prefix = "column"
    while any(name.startswith(prefix) for name in cleaned):
        prefix += "_"
    return tuple(f"{prefix}{index:06d}" for index in range(len(columns)))


def column_specs(features: Sequence[FeatureSpec]) -> tuple[tf.TensorSpec, ...]:
    """Return the input specification of each raw column, of shape ``(batch,)``.

    Args:
        features: The used features, in the order of the schema.
    """
    names = parameter_names([feature.name for feature in features])
    return tuple(
        tf.TensorSpec((None,), _raw_dtype(feature), name=name) for feature, name in zip(features, names, strict=True)
    )


def parse_examples(serialized: tf.Tensor, features: Sequence[FeatureSpec]) -> dict[str, tf.Tensor]:
    """Turn serialized tf.Example into raw columns.

    An absent feature and an empty list are a missing value (NaN or ""); more than one value is refused.

    Args:
        serialized: (batch,) string.
        features: The used features. Integer ones are int64_list, other float32 ones float_list, text bytes_list.

    Returns:
        Raw columns by name, each (batch,).
    """
    specification = {feature.name: tf.io.VarLenFeature(_example_dtype(feature)) for feature in features}
    parsed = tf.io.parse_example(serialized, specification)
    lengths = tf.stack([parsed[feature.name].dense_shape[1] for feature in features])
    names = tf.constant([feature.name for feature in features])
    check = tf.debugging.Assert(
        tf.reduce_all(lengths <= 1),
        ["Expected at most one value for each feature, received more for:", tf.boolean_mask(names, lengths > 1)],
    )
    with tf.control_dependencies([check]):
        num_rows = tf.shape(serialized, out_type=tf.int64)[:1]
    columns = {}
    for feature in features:
        sparse = parsed[feature.name]
        dtype = _raw_dtype(feature)
        missing = tf.fill(num_rows, tf.constant(float("nan") if dtype == tf.float32 else "", dtype=dtype))
        values = sparse.values if dtype == tf.string else tf.cast(sparse.values, dtype)
        columns[feature.name] = tf.tensor_scatter_nd_update(missing, sparse.indices[:, :1], values)
    return columns


def finish_signatures(directory: Path, features: Sequence[FeatureSpec]) -> None:
    """Set the exact column names and TensorFlow Serving's method names in a SavedModel on disk.

    Args:
        directory: Directory with saved_model.pb, traced with ``column_specs``.
        features: The used features, in the same order.
    """
    columns = [feature.name for feature in features]
    parameters = parameter_names(columns)
    column_of = dict(zip(parameters, columns, strict=True))
    are_numbered = parameters != tuple(map(_cleaned, columns))
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    for name, signature in meta_graph.signature_def.items():
        signature.method_name = METHOD_NAMES.get(name, signature.method_name)
    for name in {SERVING_DEFAULT, PIXELS} & set(meta_graph.signature_def):
        _rename_inputs(meta_graph.signature_def[name], column_of)
    for node in meta_graph.object_graph_def.nodes:
        function = node.bare_concrete_function
        if are_numbered and set(function.argument_keywords) == set(column_of):
            keywords = [column_of[parameter] for parameter in function.argument_keywords]
            function.argument_keywords[:] = keywords
            function.allowed_positional_arguments = len(keywords)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(directory))  # of the file as it is now


def call_signature(signature: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Call ``serving_default`` of a loaded model, whatever the columns are called.

    Args:
        signature: ``tf.saved_model.load(...).signatures["serving_default"]``.
        columns: Tensors of shape (batch,) by column name, in the order of the schema.

    Returns:
        Output tensors by name.
    """
    if parameter_names(tuple(columns)) == tuple(map(_cleaned, columns)):
        outputs = signature(**columns)
    else:
        outputs = signature(*columns.values())
    return dict(outputs)


def _rename_inputs(signature: Any, column_of: dict[str, str]) -> None:
    inputs = {}
    for parameter, column in column_of.items():
        inputs[column] = type(signature.inputs[parameter])()
        inputs[column].CopyFrom(signature.inputs[parameter])
    signature.inputs.clear()
    for column, tensor in inputs.items():
        signature.inputs[column].CopyFrom(tensor)


def _cleaned(column: str) -> str:
    # As tensorflow.core.function.polymorphism.function_type.sanitize_arg_name.
    cleaned = "".join(letter if letter.isalnum() else "_" for letter in column)
    return cleaned if cleaned[0].isalpha() else f"arg_{cleaned}"


def _is_parameter(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name != "self"


def _raw_dtype(feature: FeatureSpec) -> tf.DType:
    return tf.float32 if feature.raw_type is RawType.FLOAT32 else tf.string


def _example_dtype(feature: FeatureSpec) -> tf.DType:
    return tf.int64 if feature.integer and feature.raw_type is RawType.FLOAT32 else _raw_dtype(feature)
