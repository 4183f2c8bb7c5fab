"""From a version directory to a version that answers: checks, load, warm-up (imports TensorFlow)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import tensorflow as tf

from tf_serving.server import messages
from tf_serving.server.batching import Batcher
from tf_serving.server.config_files import BatchingParameters, ModelConfig, read_batching_parameters
from tf_serving.server.extensions import Arrays
from tf_serving.server.loaded_model import LoadedModel
from tf_serving.server.metrics import Metrics
from tf_serving.server.served_version import ServedVersion
from tf_serving.server.settings import ServerSettings
from tf_serving.server.signatures import ServedSignature, check_inputs
from tf_serving.server.status import Code, ConfigurationError, ServingError
from tf_serving.server.trust import LITE_FILE, check_version
from tf_serving.server.warmup_replay import replay

PER_MODEL_BATCHING = "batching_params.pbtxt"

Preflight = Callable[["LoadOptions", Path, str], None]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How versions are loaded; travels to the child process as JSON.

    Attributes:
        allow_unverified: Whether models without a manifest are loaded.
        tags: Of the graph.
        prefer_tflite: Whether ``model.tflite`` goes before ``saved_model.pb``.
        warm_up: Whether warm-up requests are replayed.
        iterations: How often each is.
        intra_op: Threads within an operation; 0 for TensorFlow's choice.
        inter_op: Threads between operations; 0 for TensorFlow's choice.
        timeout_ms: The deadline of most requests; 0 for none.
    """

    allow_unverified: bool = False
    tags: tuple[str, ...] = ("serve",)
    prefer_tflite: bool = False
    warm_up: bool = True
    iterations: int = 1
    intra_op: int = 0
    inter_op: int = 0
    timeout_ms: int = 0

    @classmethod
    def of(cls, settings: ServerSettings) -> LoadOptions:
        """Return those of a server."""
        return cls(
            allow_unverified=settings.allow_unverified,
            tags=tuple(tag.strip() for tag in settings.saved_model_tags.split(",")),
            prefer_tflite=settings.prefer_tflite_model,
            warm_up=settings.enable_model_warmup,
            iterations=max(1, settings.num_request_iterations_for_warmup),
            intra_op=settings.tensorflow_intra_op_parallelism or settings.tensorflow_session_parallelism,
            inter_op=settings.tensorflow_inter_op_parallelism or settings.tensorflow_session_parallelism,
            timeout_ms=settings.rest_api_timeout_in_ms,
        )


def load_model(
    directory: Path, *, name: str, number: int, options: LoadOptions, metrics: Metrics, is_trial: bool = False
) -> Any:
    """Check, load and warm up a version; return the LoadedModel or LoadedLiteModel.

    Args:
        directory: The version directory.
        name: Of the model.
        number: Of the version.
        options: How.
        metrics: To tell counts and times.
        is_trial: Whether no request will come.

    Raises:
        ServingError: It may not be loaded, cannot be, or its warm-up fails.
    """
    is_lite = options.prefer_tflite and (directory / LITE_FILE).exists()
    check_version(directory, allow_unverified=options.allow_unverified, is_lite=is_lite)
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.intra_op, inter_op_parallelism_threads=options.inter_op
    )
    model: Any
    if is_lite:
        from tf_serving.server.lite_model import LoadedLiteModel

        model = LoadedLiteModel.load(directory / LITE_FILE)
    else:
        model = LoadedModel.load(directory, tags=options.tags, config=config, usual_timeout_ms=options.timeout_ms)
    if options.warm_up:
        seen: dict[tuple[str, tuple[str, ...]], Any] = {}

        def run(signature: ServedSignature, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
            inputs = check_inputs(signature, inputs)
            seen[signature.name, outputs] = (signature, inputs, outputs)
            answer: Arrays = model.run(signature, inputs, outputs, timeout=0.0)
            return answer

        target = messages.Target(name, number, model, run)
        try:
            replay(
                directory,
                lambda method, request: messages.answer(method, request, target),
                iterations=options.iterations,
                metrics=metrics,
            )
            if isinstance(model, LoadedModel) and not is_trial:
                for call in seen.values():
                    model.make_ready(*call)
        except BaseException:
            model.close()
            raise
    return model


@final
class VersionLoader:
    """Loads versions for the store.

    Args:
        settings: Of the server.
        metrics: Of the server.
        preflight: Loads the version in another process first; None to go without.
    """

    def __init__(self, settings: ServerSettings, *, metrics: Metrics, preflight: Preflight | None) -> None:
        self._options = LoadOptions.of(settings)
        self._metrics = metrics
        self._preflight = preflight
        self._per_model = settings.enable_per_model_batching_parameters
        self._parameters: BatchingParameters | None = None
        if settings.enable_batching:
            file = settings.batching_parameters_file
            self._parameters = read_batching_parameters(Path(file)) if file else BatchingParameters()

    def __call__(self, config: ModelConfig, number: int, directory: Path) -> ServedVersion:
        """Return the version, ready to answer.

        Raises:
            ServingError: Why not.
        """
        try:
            if self._preflight is not None:
                self._preflight(self._options, directory, config.name)
            model = load_model(directory, name=config.name, number=number, options=self._options, metrics=self._metrics)
            batcher = self._batcher(config.name, directory, model)
        except ConfigurationError as error:
            raise ServingError(Code.INVALID_ARGUMENT, str(error)) from error
        return ServedVersion(config.name, number, directory, model, batcher)

    def _batcher(self, name: str, directory: Path, model: Any) -> Batcher | None:
        parameters = self._parameters
        if parameters is None:
            return None
        if self._per_model:
            # Only models that say how are batched; the pools are those of the global file.
            file = directory / PER_MODEL_BATCHING
            if not file.exists():
                return None
            parameters = read_batching_parameters(file)
        return Batcher(model, name=name, parameters=parameters, metrics=self._metrics)
