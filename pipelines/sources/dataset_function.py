"""A Python function that returns a tf.data.Dataset, run in a process of its own: this one holds no TensorFlow (R2).

The rows come back through an Arrow stream in a temporary file, so that neither process holds all of them.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import pickle
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from pipelines.content_hash import stream_hash
from pipelines.errors import DataError, suggest_name
from pipelines.sources.file_format import first_line, unite
from pipelines.sources.options import ReadOptions
from pipelines.sources.source import FilePrint, Loaded, Parsed, Source, wanted_columns

PREFIX = "python:"
LABEL = "label"
"""Name of the column that the second element of a pair becomes."""

_ROWS_A_BATCH = 8_192


@final
class DatasetSource(Source):
    """The elements of a tf.data.Dataset; the function is called once for an object of this class.

    Elements are dictionaries of scalars, or of vectors when the dataset is batched; or pairs of such a dictionary and a
    label, which becomes the column ``label``.

    Args:
        function: A function without arguments that returns the dataset, or ``module:function``. It is imported by its
            name in another process, so it must stand at the top of a module.
    """

    def __init__(self, function: Callable[[], Any] | str) -> None:
        self._function = function
        self._path: Path | None = None
        self._writing = threading.Lock()

    @property
    def name(self) -> str:
        """``python:`` and the function."""
        if isinstance(self._function, str):
            return PREFIX + self._function
        module = getattr(self._function, "__module__", "?")
        return f"{PREFIX}{module}:{getattr(self._function, '__qualname__', repr(self._function))}"

    @property
    def title(self) -> str:
        """The same."""
        return self.name

    def num_bytes(self) -> int:
        """Return the size of the rows; the function is called for it."""
        return self._written().stat().st_size

    def prints(self) -> tuple[str, tuple[FilePrint, ...]]:
        """Return the hash of the rows as the function gave them."""
        with self._written().open("rb") as file:
            return stream_hash(file)[0], ()

    def load(self, options: ReadOptions) -> Loaded:
        """Read all elements."""
        del options
        with self._stored() as reader:
            tables = [pa.Table.from_batches([batch]) for batch in reader]
        table = unite([("the rows before", table) for table in tables])
        return Loaded(parsed=Parsed(table=table), fingerprint=self.prints()[0])

    def stream(
        self, options: ReadOptions, *, columns: Collection[str] | None, chunk_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the elements; all of them have been written to a file before the first comes."""
        del options, chunk_rows
        with self._stored() as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch.select(wanted_columns(batch.schema.names, columns))])

    @contextlib.contextmanager
    def _stored(self) -> Iterator[pa.RecordBatchStreamReader]:
        with pa.memory_map(str(self._written())) as file, pa.ipc.open_stream(file) as reader:
            yield reader

    def _written(self) -> Path:
        """Returns the file of the rows; the first who asks has the function called."""
        with self._writing:
            if self._path is None:
                folder = tempfile.mkdtemp(prefix="tamiz-")
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                path = Path(folder) / "rows.arrow"
                self._write(path)
                self._path = path
            return self._path

    def _write(self, path: Path) -> None:
        try:
            pickle.dumps(self._function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise DataError(
                f"Expected a function at the top of a module, received {self.name}, which another process cannot "
                "import; lambdas and functions inside functions cannot be used."
            ) from error
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_write_dataset, args=(self._function, str(path), sender), daemon=True)
        process.start()
        sender.close()
        try:
            problem = receiver.recv()
        except EOFError:
            problem = "its process ended early"
        finally:
            # After Ctrl-C nobody waits for the rows.
            if sys.exc_info()[0] is KeyboardInterrupt:
                process.terminate()
            process.join()
            process.close()
            receiver.close()
        if problem:
            raise DataError(f"{self.name} gave no rows: {problem}.")


def _write_dataset(function: Callable[[], Any] | str, path: str, sender: Any) -> None:
    """Write the rows of a dataset to an Arrow stream and send what went wrong, "" for nothing; runs in the child."""
    try:
        dataset = _imported(function)() if isinstance(function, str) else function()
        _write_rows(dataset, path)
        sender.send("")
    except DataError as error:
        sender.send(str(error).rstrip("."))
    except Exception as error:  # it is the user's code
        sender.send(f"{type(error).__name__}: {first_line(error)}")


def _imported(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise DataError(f"expected python:module:function, received {PREFIX}{name}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as for spaces: a module beside the user
    module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise DataError(f"{module_name} has no function {attribute!r}.{suggest_name(attribute, dir(module))}")
    return found  # type: ignore[no-any-return]  # the user's


def _write_rows(dataset: Any, path: str) -> None:
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise DataError(f"expected a tf.data.Dataset, received {type(dataset).__name__}")
    ranks = {spec.shape.rank for spec in _columns(dataset.element_spec).values()}
    if ranks == {0}:
        dataset = dataset.batch(_ROWS_A_BATCH)
    elif ranks != {1}:
        raise DataError(
            f"expected one value a column and row, or batches of them, received elements of the shapes "
            f"{ {name: str(spec.shape) for name, spec in _columns(dataset.element_spec).items()} }"
        )
    writer = None
    with contextlib.ExitStack() as stack:
        for element in dataset.as_numpy_iterator():
            # A tensor has one type throughout, so that of the first rows is that of all.
            table = pa.table({name: _arrow(array) for name, array in _columns(element).items()})
            if writer is None:
                writer = stack.enter_context(pa.ipc.new_stream(path, table.schema))
            writer.write_table(table)
        if writer is None:
            raise DataError("the dataset is empty")


def _columns(element: Any) -> Mapping[str, Any]:
    if isinstance(element, tuple) and len(element) == 2 and isinstance(element[0], Mapping):
        if LABEL in element[0]:
            raise DataError(f"expected no feature named {LABEL!r} beside the label of a pair")
        return {**element[0], LABEL: element[1]}
    if isinstance(element, Mapping):
        return element
    raise DataError(
        "expected elements that are dictionaries from column to value, or pairs of such a dictionary and a label, "
        f"received {type(element).__name__}"
    )


def _arrow(array: Any) -> pa.Array:
    array = np.asarray(array)
    if array.dtype.kind not in "OS":
        return pa.array(array)
    try:
        return pa.array(array.tolist(), pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise DataError("expected text in UTF-8, received other bytes; leave columns such as images out") from error
