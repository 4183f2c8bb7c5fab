"""Write a model as a SavedModel that answers raw columns (imports TensorFlow).

The order: trace, save to a hidden directory, name the signatures, add what belongs to the model, write the manifest.
``publish`` gives the version its number, after ``verify`` has accepted it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from pipelines.schema import DatasetSchema, FeatureSpec, RawType, Task
from tf_serving.errors import ExportError
from tf_serving.model_versions import check_file_name, create_staging, discard, publish, sync_directory
from tf_serving.sample_request import SAMPLE_FILE, sample_request
from tf_serving.signatures import (
    CLASSIFY,
    PIXELS,
    REGRESS,
    SERVING_DEFAULT,
    column_specs,
    finish_signatures,
    parse_examples,
)
from tf_serving.version_manifest import MANIFEST_PATH, write_manifest
from tf_serving.warmup import WARMUP_FILE, write_warmup_requests

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Column = NDArray[Any]

@dataclass(frozen=True, slots=True, kw_only=True)
class PixelAnswer:
    """A signature that takes decoded images.

    Attributes:
        answer: As that of ``stage_saved_model``, with ``(batch, height, width, channels)`` uint8 for the images.
        column: The column of images.
        shape: Height, width and channels.
    """

    answer: Answer
    column: str
    shape: tuple[int, int, int]

    def spec(self, encoded: tf.TensorSpec) -> tf.TensorSpec:
        """Return the specification of the decoded column for that of the encoded one."""
        return tf.TensorSpec((None, *self.shape), tf.uint8, name=encoded.name)


SCHEMA_FILE = "schema.json"
EXTRA_DIRECTORY = "assets.extra"
RESERVED_FILES = (Path(MANIFEST_PATH).name, SAMPLE_FILE, WARMUP_FILE)


def export_saved_model(
    answer: Answer,
    *,
    track: Sequence[object],
    schema: DatasetSchema,
    directory: Path,
    sample: Mapping[str, Column],
    extra_files: Mapping[str, bytes],
) -> Path:
    """Write and publish a model in one step; return the new version directory.

    To verify before anything is published: ``stage_saved_model``, ``verify``, ``model_versions.publish``.

    Args:
        answer: As ``stage_saved_model``, like all other arguments.
        track: Objects that own the variables and tables.
        schema: Columns and target.
        directory: ``<base>/<model name>``.
        sample: Real raw rows.
        extra_files: Files for ``assets.extra``.

    Raises:
        ValueError: As ``stage_saved_model``.
        ExportError: As ``stage_saved_model``, or the version cannot be published.
    """
    staging = stage_saved_model(
        answer, track=track, schema=schema, directory=directory, sample=sample, extra_files=extra_files
    )
    return publish(staging)


def stage_saved_model(
    answer: Answer,
    *,
    track: Sequence[object],
    schema: DatasetSchema,
    directory: Path,
    sample: Mapping[str, Column],
    extra_files: Mapping[str, bytes],
    pixels: PixelAnswer | None = None,
) -> Path:
    """Write a model to a hidden directory beside its versions, complete but not yet published; return it.

    ``serving_default`` takes the raw columns by name, each (batch,) float32 or string. ``classify`` or
    ``regress`` takes ``inputs`` (batch,), serialized tf.Example, and answers ``classes`` and ``scores``
    (batch, num_classes) or ``outputs`` (batch,). Batches may be of any size, none included.

    Args:
        answer: Maps raw columns by name to ``{"probabilities": (batch, num_classes) float32, "label": (batch,)
            string}``, or to ``{"prediction": (batch,) float32}``; further outputs of shape (batch, ...) are kept. Plain
            TensorFlow operations, batches of any size.
        track: Objects that own the tables and variables used by ``answer``: Keras models, tf.Module, tables.
        schema: Columns and target; written as ``assets.extra/schema.json`` unless ``extra_files`` has it.
        directory: ``<base>/<model name>``; created when missing.
        sample: Raw columns of at least one real row, for the warm-up requests and the sample request.
        extra_files: Content of further files in ``assets.extra`` by file name.
        pixels: For a model of images: a further signature that takes them decoded.

    Raises:
        ValueError: A name, the sample or what ``answer`` returns is not as described.
        ExportError: The files cannot be written.
    """
    features = schema.used_features
    _check_sample(sample, features)
    _check_extra_files(extra_files)
    root, signatures = trace_signatures(answer, track=track, schema=schema, pixels=pixels)
    staging = create_staging(directory)
    try:
        tf.saved_model.save(root, str(staging), signatures=signatures)
        finish_signatures(staging, features)
        _write_extra_files(
            staging / EXTRA_DIRECTORY,
            model_name=directory.name,
            schema=schema,
            sample=sample,
            signatures=tuple(name for name in signatures if name != PIXELS),
            extra_files=extra_files,
        )
        write_manifest(staging)
        _sync(staging)
    except (OSError, tf.errors.OpError) as error:
        discard(staging)
        raise ExportError(
            f"Cannot write the export to {directory}: {_reason(error)}; check space and permissions, then export again."
        ) from error
    except BaseException:
        discard(staging)
        raise
    return staging


def trace_signatures(
    answer: Answer, *, track: Sequence[object], schema: DatasetSchema, pixels: PixelAnswer | None = None
) -> tuple[tf.Module, dict[str, Any]]:
    """Return the object to save and its signatures, the concrete functions that will be served.

    Args:
        answer: As ``stage_saved_model``, like all other arguments.
        track: Objects that own the variables and tables.
        schema: Columns and target.
        pixels: As ``stage_saved_model``.

    Raises:
        ValueError: What ``answer`` returns, or a column's name, is not as ``stage_saved_model`` says.
    """
    features = schema.used_features
    specs = column_specs(features)
    names = [feature.name for feature in features]

    def serving_default(*columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(dict(zip(names, columns, strict=True)))

    default = tf.function(serving_default, autograph=False, input_signature=specs).get_concrete_function()
    _check_outputs(default.structured_outputs, schema)

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = default(*parse_examples(inputs, features).values())["probabilities"]
        classes = tf.broadcast_to(tf.constant(schema.target.classes), tf.shape(scores))
        return {"classes": classes, "scores": scores}

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": default(*parse_examples(inputs, features).values())["prediction"]}

    signatures = {SERVING_DEFAULT: default}
    # TensorFlow Serving's regression answers one number a row.
    if schema.target.task.is_classification or not schema.target.columns:
        name, on_examples = (CLASSIFY, classify) if schema.target.task.is_classification else (REGRESS, regress)
        serialized = [tf.TensorSpec((None,), tf.string, name="inputs")]
        examples = tf.function(on_examples, autograph=False, input_signature=serialized)
        signatures[name] = examples.get_concrete_function()
    if pixels is not None:
        place = names.index(pixels.column)
        decoded = [*specs[:place], pixels.spec(specs[place]), *specs[place + 1 :]]
        take_pixels = pixels.answer

        def on_pixels(*columns: tf.Tensor) -> dict[str, tf.Tensor]:
            return take_pixels(dict(zip(names, columns, strict=True)))

        signatures[PIXELS] = tf.function(on_pixels, autograph=False, input_signature=decoded).get_concrete_function()
    root = tf.Module()
    # Only variables and tables, not the Keras layers around them: nothing is left that TensorFlow alone cannot restore.
    root.variables_used = list(default.graph.variables)
    root.resources_used = [
        resource
        for owner in track
        for resource in tf.train.TrackableView(owner).descendants()
        if isinstance(resource, tf.saved_model.experimental.TrackableResource)
    ]
    return root, signatures


def _reason(error: Any) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # "{{node ...}} /path/to/file; No space left on device [Op:SaveV2]"
    return str(error.message).rpartition("; ")[2].partition(" [Op:")[0]


def _write_extra_files(
    directory: Path,
    *,
    model_name: str,
    schema: DatasetSchema,
    sample: Mapping[str, Column],
    signatures: Sequence[str],
    extra_files: Mapping[str, bytes],
) -> None:
    features = schema.used_features
    schema_json = json.dumps(schema.to_json(), indent=1, ensure_ascii=False).encode() + b"\n"
    files = {SCHEMA_FILE: schema_json, SAMPLE_FILE: sample_request(features, sample)} | dict(extra_files)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    write_warmup_requests(
        directory / WARMUP_FILE,
        model_name=model_name,
        features=features,
        sample=sample,
        signatures=signatures,
    )


def _check_outputs(outputs: Any, schema: DatasetSchema) -> None:
    expected: dict[str, tuple[tf.DType, tuple[int | None, ...]]]
    if schema.target.task is Task.MULTILABEL:
        expected = {"probabilities": (tf.float32, (None, schema.num_classes))}
        expected |= dict.fromkeys(schema.target.names, (tf.string, (None,)))
    elif schema.target.columns:
        expected = dict.fromkeys(schema.target.columns, (tf.float32, (None,)))
    elif schema.target.task.is_classification:
        expected = {
            "probabilities": (tf.float32, (None, schema.num_classes)),
            "label": (tf.string, (None,)),
        }
    else:
        expected = {"prediction": (tf.float32, (None,))}
    received = {name: (value.dtype, value.shape) for name, value in dict(outputs).items()}
    for name, (dtype, shape) in expected.items():
        if name not in received or received[name][0] != dtype or not _fits(received[name][1], shape):
            raise ValueError(
                f"Expected the model to answer {name!r} as {dtype.name} of shape {shape} for a "
                f"{schema.target.task} target, received "
                f"{ {key: (kind.name, tuple(size)) for key, (kind, size) in received.items()} }."
            )


def _fits(received: tf.TensorShape, expected: tuple[int | None, ...]) -> bool:
    # The batch has to be free: a shape known to be 8 rows serves nobody else.
    return received.rank == len(expected) and received[0] is None and received.is_compatible_with((None, *expected[1:]))


def _check_sample(sample: Mapping[str, Column], features: Sequence[FeatureSpec]) -> None:
    lengths = {feature.name: len(sample.get(feature.name, ())) for feature in features}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"Expected sample rows with a value for every used column, received columns of lengths {lengths}."
        )
    for feature in features:
        values = sample[feature.name]
        wanted = "f" if feature.raw_type is RawType.FLOAT32 else "O"
        if values.dtype.kind != wanted or (wanted == "O" and not isinstance(values[0], bytes)):
            raise ValueError(
                f"Expected sample values of {feature.name!r} as {feature.raw_type} "
                f"(float32, or an object array of bytes), received {values.dtype}."
            )


def _check_extra_files(extra_files: Mapping[str, bytes]) -> None:
    for name in extra_files:
        check_file_name(name)
        if name in RESERVED_FILES:
            raise ValueError(f"The export writes {name!r} itself; give the extra file another name.")


def _sync(directory: Path) -> None:
    # The rename may reach the disk before the content does; a power cut would then publish empty files.
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))
