"""A TensorFlow Lite file that answers like a SavedModel (imports TensorFlow)."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2

from tf_serving.server import tensor_types as types
from tf_serving.server.signatures import PREDICT_METHOD, SERVING_DEFAULT, ServedSignature
from tf_serving.server.status import Code, ServingError, invalid

Arrays = dict[str, NDArray[Any]]


@final
class LoadedLiteModel:
    """One ``model.tflite``; an interpreter for each thread that calls it.

    Args:
        content: Of the file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._local = threading.local()
        self.is_quick = False
        interpreter = self._interpreter()
        listed: Mapping[str, Any] = interpreter.get_signature_list()
        self._named = bool(listed)
        self.signatures: dict[str, ServedSignature] = {}
        for key in listed or {SERVING_DEFAULT: None}:
            proto = meta_graph_pb2.SignatureDef(method_name=PREDICT_METHOD)
            inputs, outputs = self._details(interpreter, key)
            for details, target in ((inputs, proto.inputs), (outputs, proto.outputs)):
                for alias, detail in details.items():
                    _fill(target[alias], detail)
            self.signatures[key] = ServedSignature.from_proto(key, proto, {})

    @classmethod
    def load(cls, path: Path) -> LoadedLiteModel:
        """Load a file.

        Raises:
            ServingError: It is no TensorFlow Lite model.
        """
        try:
            return cls(path.read_bytes())
        except (ValueError, RuntimeError, OSError) as error:
            raise ServingError(Code.INVALID_ARGUMENT, f"Cannot load {path}: {error}") from error

    def signature(self, name: str) -> ServedSignature | None:
        """Return a signature; "" is the default one, or the only one."""
        if not name and SERVING_DEFAULT not in self.signatures and len(self.signatures) == 1:
            return next(iter(self.signatures.values()))
        return self.signatures.get(name or SERVING_DEFAULT)

    def is_short(self, signature: str) -> bool:  # noqa: ARG002 - as LoadedModel
        """Return False: an interpreter belongs to a thread, and the event loop has better to do."""
        return False

    def run(
        self,
        signature: ServedSignature,
        inputs: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout: float,  # noqa: ARG002 - an interpreter cannot be interrupted
    ) -> Arrays:
        """Return outputs by alias.

        Raises:
            ServingError: INVALID_ARGUMENT with the interpreter's words.
        """
        interpreter = self._interpreter()
        try:
            in_details, out_details = self._details(interpreter, signature.name)
            resized = False
            for alias, detail in in_details.items():
                if tuple(detail["shape"]) != inputs[alias].shape:
                    interpreter.resize_tensor_input(detail["index"], inputs[alias].shape)
                    resized = True
            if resized:
                interpreter.allocate_tensors()
            for alias, detail in in_details.items():
                interpreter.set_tensor(detail["index"], inputs[alias].astype(detail["dtype"], copy=False))
            interpreter.invoke()
            return {alias: interpreter.get_tensor(out_details[alias]["index"]) for alias in outputs}
        except (ValueError, RuntimeError) as error:
            raise invalid(str(error)) from None

    def close(self) -> None:
        """Give the memory back."""
        self._content = b""
        self._local = threading.local()

    def _interpreter(self) -> Any:
        interpreter = getattr(self._local, "interpreter", None)
        if interpreter is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the note that the interpreter will move to another package
                interpreter = tf.lite.Interpreter(model_content=self._content)
            interpreter.allocate_tensors()
            self._local.interpreter = interpreter
        return interpreter

    def _details(self, interpreter: Any, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        if not self._named:
            return inputs, outputs
        runner = interpreter.get_signature_runner(key)
        return runner.get_input_details(), runner.get_output_details()


def _fill(info: Any, detail: Mapping[str, Any]) -> None:
    info.name = detail["name"]
    info.dtype = types.number_of(np.dtype(detail["dtype"]))
    signature = detail.get("shape_signature")
    shape = detail["shape"] if signature is None or not len(signature) else signature
    for size in shape:
        info.tensor_shape.dim.add(size=int(size))
