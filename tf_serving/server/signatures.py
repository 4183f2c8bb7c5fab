"""Signatures of a loaded model as the server uses them, and the checks of TensorFlow Serving on their use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tf_serving.server import tensor_types as types
from tf_serving.server.extensions import SignatureView
from tf_serving.server.status import Code, ServingError, invalid

SERVING_DEFAULT = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        tensor: Name in the graph.
        dtype: Number of the type.
        shape: None for unknown rank; None within for free dimensions.
    """

    tensor: str
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class ServedSignature:
    """One signature.

    Attributes:
        name: Its key.
        method_name: What it is made for.
        inputs: By alias, in alphabetical order.
        outputs: Likewise.
        defaults: Values of inputs that may be left out.
        proto: The SignatureDef.
        dtypes: Number of the type of every input.
        output_names: Aliases of the outputs.
        can_batch: Whether the first dimension of every input and output is free.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, NDArray[Any]]
    proto: Any
    dtypes: Mapping[str, int] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    can_batch: bool = False

    @classmethod
    def from_proto(cls, name: str, proto: Any, defaults: Mapping[str, NDArray[Any]]) -> ServedSignature:
        """Return the signature of a SignatureDef."""
        inputs = {alias: _spec(proto.inputs[alias]) for alias in sorted(proto.inputs)}
        outputs = {alias: _spec(proto.outputs[alias]) for alias in sorted(proto.outputs)}
        specs = [*inputs.values(), *outputs.values()]
        return cls(
            name=name,
            method_name=proto.method_name,
            inputs=inputs,
            outputs=outputs,
            defaults=defaults,
            proto=proto,
            dtypes={alias: spec.dtype for alias, spec in inputs.items()},
            output_names=tuple(outputs),
            can_batch=bool(inputs) and all(spec.shape and spec.shape[0] is None for spec in specs),
        )

    def view(self) -> SignatureView:
        """Return what extensions may know."""
        return SignatureView(
            name=self.name,
            method_name=self.method_name,
            inputs={alias: (_numpy_name(spec.dtype), spec.shape) for alias, spec in self.inputs.items()},
            outputs={alias: (_numpy_name(spec.dtype), spec.shape) for alias, spec in self.outputs.items()},
        )


def _numpy_name(dtype: int) -> str:
    if dtype == types.STRING or dtype not in types.NUMPY:
        return types.type_name(dtype)
    return types.NUMPY[dtype].name


def _spec(info: Any) -> TensorSpec:
    shape: tuple[int | None, ...] | None = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim)
    return TensorSpec(tensor=info.name, dtype=info.dtype, shape=shape)


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def check_inputs(signature: ServedSignature, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the inputs with defaults filled in.

    Raises:
        ServingError: INVALID_ARGUMENT with TensorFlow Serving's words where names do not match.
    """
    wanted = signature.inputs
    if given.keys() == wanted.keys():
        return given
    if len(given) != len(wanted) and not signature.defaults:
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({_set(given)}) != "
            f"len({_set(wanted)}). Sent extra: {_set(given.keys() - wanted.keys())}. "
            f"Missing but required: {_set(wanted.keys() - given.keys())}."
        )
    for alias, spec in wanted.items():
        if alias not in given and alias not in signature.defaults:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {spec.tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_set(given)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
    if given.keys() - wanted.keys():
        raise invalid(
            "Inputs contains invalid name. Used request inputs: " + _set(given.keys() & wanted.keys()),
        )
    return {**signature.defaults, **given}


def check_outputs(signature: ServedSignature, output_filter: Iterable[str]) -> tuple[str, ...]:
    """Return the aliases to fetch.

    Raises:
        ServingError: INVALID_ARGUMENT where a name is unknown or there twice.
    """
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_set(signature.outputs)}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return tuple(chosen) or signature.output_names


def check_classify(signature: ServedSignature, *, strict_method: bool) -> None:
    """Check that a signature can classify.

    Raises:
        ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION.
    """
    _check_method(signature, CLASSIFY_METHOD, "classification", strict=strict_method)
    if not signature.outputs.keys() & {"classes", "scores"}:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Expected classification signature outputs to contain at least one of 'classes' or 'scores'. "
            f"Signature was: {signature.name}",
        )
    if signature.outputs.keys() - {"classes", "scores"}:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Expected one or two outputs, 'classes' and 'scores', found {_set(signature.outputs)}",
        )


def check_regress(signature: ServedSignature, *, strict_method: bool) -> None:
    """Check that a signature can regress.

    Raises:
        ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION.
    """
    _check_method(signature, REGRESS_METHOD, "regression", strict=strict_method)
    if set(signature.outputs) != {"outputs"}:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"Expected one output tensor 'outputs', found {_set(signature.outputs)}"
        )


def _check_method(signature: ServedSignature, method: str, kind: str, *, strict: bool) -> None:
    if strict and signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}",
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise ServingError(Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef: {signature.name}")


def num_rows(inputs: Mapping[str, NDArray[Any]]) -> int | None:
    """Return the common first dimension, or None where there is none."""
    size = None
    for array in inputs.values():
        shape = array.shape
        if not shape or size not in (None, shape[0]):
            return None
        size = shape[0]
    return size
