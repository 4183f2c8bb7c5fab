"""What may be loaded: verified exports of tamiz, and on demand other SavedModels whose every operation is allowed.

A SavedModel is a program. The manifest shows that an export is as it was verified; a model without one is refused
unless ``--allow-unverified`` is given, and then every operation in its graph and in its function library has to be on
the allow-list. Only TensorFlow's protos are used here, no graph is built.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tf_serving.errors import VerificationError
from tf_serving.server.allowed_operations import ALLOWED, WRITERS
from tf_serving.server.status import Code, ServingError
from tf_serving.version_manifest import MANIFEST_PATH, verify_manifest

LITE_FILE = "model.tflite"
_OF_TENSORFLOW = b"Flex"
INITIALISERS = ("saved_model_main_op", "legacy_init_op")
INITIALISER_SIGNATURE = "__saved_model_init_op"


def check_version(directory: Path, *, allow_unverified: bool, is_lite: bool = False) -> None:
    """Check that a version may be loaded.

    Args:
        directory: The version directory.
        allow_unverified: Whether a model without a manifest may be, after a scan.
        is_lite: Whether its TensorFlow Lite file is what is loaded.

    Raises:
        ServingError: PERMISSION_DENIED, or DATA_LOSS where a manifest does not match.
    """
    if (directory / MANIFEST_PATH).exists():
        try:
            verify_manifest(directory)
        except (VerificationError, OSError) as error:
            raise ServingError(Code.DATA_LOSS, str(error)) from error
        return
    if not allow_unverified:
        raise ServingError(
            Code.PERMISSION_DENIED,
            f"{directory} has no {MANIFEST_PATH}: it is not an export of tamiz. A SavedModel is a program; if you "
            "trust where it comes from, start the server with --allow-unverified.",
        )
    if is_lite:
        scan_lite_model(directory / LITE_FILE)
    elif any((directory / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        scan_saved_model(directory)


def scan_saved_model(directory: Path) -> None:
    """Check every operation of a SavedModel against the allow-list.

    Args:
        directory: With ``saved_model.pb`` or ``saved_model.pbtxt``.

    Raises:
        ServingError: PERMISSION_DENIED naming operations that are not allowed, or DATA_LOSS for an unreadable file.
    """
    for meta_graph in _read(directory).meta_graphs:
        graph = meta_graph.graph_def
        functions = {function.signature.name: function for function in graph.library.function}
        allowed = ALLOWED | WRITERS | functions.keys()
        found = {node.op for node in _all_nodes(graph)}
        refused = sorted(found - allowed)
        if refused:
            raise ServingError(
                Code.PERMISSION_DENIED,
                f"{directory} contains operations that are not allowed in a model without a manifest: "
                f"{', '.join(refused[:10])}{' and more' if len(refused) > 10 else ''}.",
            )
        writers = sorted(WRITERS.intersection(_operations_that_run(meta_graph, functions)))
        if writers:
            raise ServingError(
                Code.PERMISSION_DENIED,
                f"{directory} would write files when it is loaded or called ({', '.join(writers)}).",
            )


def scan_lite_model(path: Path) -> None:
    """Refuse a TensorFlow Lite file that calls operations of TensorFlow itself.

    Which one is called stands in the options of the call, whatever its name says; so none is allowed. The operations of
    TensorFlow Lite's own reach no files.

    Args:
        path: The file.

    Raises:
        ServingError: PERMISSION_DENIED naming such operations, or INVALID_ARGUMENT for an unreadable file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
        codes = [model.OperatorCodes(number).CustomCode() or b"" for number in range(model.OperatorCodesLength())]
    except (OSError, struct.error, ValueError, TypeError, IndexError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Cannot load {path}: it is no TensorFlow Lite model") from error
    found = sorted({code.decode("utf-8", "replace") for code in codes if code.startswith(_OF_TENSORFLOW)})
    if found:
        raise ServingError(
            Code.PERMISSION_DENIED,
            f"{path} calls operations of TensorFlow, which are not allowed in a model without a manifest: "
            f"{', '.join(found[:10])}{' and more' if len(found) > 10 else ''}.",
        )


def _read(directory: Path) -> Any:
    message = saved_model_pb2.SavedModel()
    binary = directory / "saved_model.pb"
    try:
        if binary.exists():
            message.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse((directory / "saved_model.pbtxt").read_text(encoding="utf-8"), message)
    except (OSError, DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"Can't parse the SavedModel in {directory}: {error}") from error
    return message


def _all_nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _operations_that_run(meta_graph: Any, functions: Mapping[str, Any]) -> set[str]:
    """Return the operations that loading or calling the model leads to."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    pending = [_node_name(name) for name in _roots(meta_graph)]
    seen: set[str] = set()
    operations: set[str] = set()
    called: list[str] = []
    while pending:
        name = pending.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        operations.add(nodes[name].op)
        called += _functions_of(nodes[name], functions)
        pending += [_node_name(source) for source in nodes[name].input]
    visited: set[str] = set()
    while called:
        function = called.pop()
        if function in visited:
            continue
        visited.add(function)
        for node in functions[function].node_def:
            operations.add(node.op)
            called += _functions_of(node, functions)
    return operations


def _roots(meta_graph: Any) -> Iterator[str]:
    for signature in meta_graph.signature_def.values():
        for info in (*signature.outputs.values(), *signature.inputs.values()):
            yield info.name
    for key in INITIALISERS:
        if key in meta_graph.collection_def:
            yield from meta_graph.collection_def[key].node_list.value
    for kind in ("table_initializer", "init_op"):
        if kind in meta_graph.collection_def:
            yield from meta_graph.collection_def[kind].node_list.value
    yield meta_graph.saver_def.restore_op_name
    yield meta_graph.saver_def.filename_tensor_name


def _functions_of(node: Any, functions: Mapping[str, Any]) -> Iterable[str]:
    names = [node.op]
    for value in node.attr.values():
        names.append(value.func.name)
        names += [function.name for function in value.list.func]
    return [name for name in names if name in functions]


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
