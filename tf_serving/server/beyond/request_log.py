"""A sample of requests and answers in Parquet files, for monitoring. No TensorFlow here.

One row of a file is one row of a request. Columns with personal data can be left out or replaced by a keyed hash;
the key stays in the folder, so that equal values keep equal hashes. The log never holds up a request: what does not
fit into the queue, or finds the disk full, is counted and dropped.
"""

from __future__ import annotations

import hmac
import os
import random
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tf_serving.server.extensions import Arrays, Call, ModelsView
from tf_serving.server.logs import LOGGER
from tf_serving.server.status import ConfigurationError, ServingError
from tf_serving.server.work_queue import WorkQueue

QUEUE_REQUESTS = 1024
CLOSE_SECONDS = 10.0
COMPLAINT_SECONDS = 60.0
MAX_FILES_OPEN = 16
SALT_FILE = ".hash_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and where.

    Attributes:
        directory: For the files; created when missing.
        sample: Share of the requests, in (0, 1].
        hashed: Inputs of which only a hash is logged.
        omitted: Inputs that are left out.
        file_rows: Rows of a file.
        file_seconds: Longest time until rows are in a file.
    """

    directory: Path
    sample: float = 1.0
    hashed: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    file_rows: int = 100_000
    file_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise ConfigurationError(f"--request_log_sample is {self.sample:g}: expected a share above 0, at most 1")
        if both := set(self.hashed) & set(self.omitted):
            raise ConfigurationError(f"The column {min(both)!r} is both hashed and left out of the request log")


@final
class RequestLog:
    """Writes the files in a thread of its own; a hook and a background of the server.

    Args:
        settings: What and where.

    Raises:
        ConfigurationError: The folder cannot be written.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._queue: WorkQueue[tuple[float, Call, Arrays, float]] = WorkQueue(
            self._work,
            name="request-log",
            most=QUEUE_REQUESTS,
            tick=self._flush_in_time,
            tick_seconds=min(1.0, settings.file_seconds),
            finish=self._flush,
        )
        self._next_flush = float("inf")
        self._parts: dict[tuple[str, int, pa.Schema], list[pa.Table]] = {}
        self._last_complaint = float("-inf")
        self._num_files = 0
        self.dropped = 0
        self.written = 0
        try:
            settings.directory.mkdir(parents=True, exist_ok=True)
            self._salt = _salt(settings.directory) if settings.hashed else b""
            probe = settings.directory / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigurationError(
                f"Cannot write the request log to {settings.directory}: {error.strerror}"
            ) from error

    def start(self, models: ModelsView) -> None:
        """Begin.

        Raises:
            ConfigurationError: No model takes a column that is to be hashed or left out: misspelt, it would be logged.
        """
        wanted = {*self._settings.hashed, *self._settings.omitted}
        for model in models.names() if wanted else ():
            for version in models.available(model):
                for signature in models.signatures(model, version).values():
                    wanted -= set(signature.inputs)
        if wanted:
            raise ConfigurationError(
                f"No model takes {min(wanted)!r}, which the request log is to hash or leave out; is it misspelt?"
            )
        self._next_flush = monotonic() + self._settings.file_seconds
        self._queue.start()

    def close(self) -> None:
        """Write what is there and end."""
        self._queue.close(seconds=CLOSE_SECONDS)

    def before(self, call: Call) -> Arrays | None:
        """Answer nothing."""
        del call
        return None

    def after(self, call: Call, outputs: Arrays | None, *, error: ServingError | None, seconds: float) -> None:
        """Take a request into the sample."""
        if outputs is None or error is not None:
            return
        if self._settings.sample < 1.0 and random.random() >= self._settings.sample:
            return
        if not self._queue.offer((time(), call, outputs, seconds)):
            self.dropped += 1

    def _work(self, entry: tuple[float, Call, Arrays, float]) -> None:
        try:
            self._add(*entry)
        except Exception:
            self.dropped += 1
            LOGGER.exception("A request could not be logged", extra={"request_id": entry[1].request_id})

    def _flush_in_time(self) -> None:
        rows = sum(table.num_rows for tables in self._parts.values() for table in tables)
        if monotonic() >= self._next_flush or rows >= self._settings.file_rows or len(self._parts) > MAX_FILES_OPEN:
            self._flush()
            self._next_flush = monotonic() + self._settings.file_seconds

    def _add(self, moment: float, call: Call, outputs: Arrays, seconds: float) -> None:
        table = self._table(moment, call, outputs, seconds)
        if table is not None:
            self._parts.setdefault((call.model, call.version, table.schema), []).append(table)

    def _table(self, moment: float, call: Call, outputs: Arrays, seconds: float) -> pa.Table | None:
        num_rows = max((len(array) for array in outputs.values() if array.ndim), default=1)
        if not num_rows:
            return None
        columns: dict[str, Any] = {
            "time": pa.array([datetime.fromtimestamp(moment, UTC)] * num_rows, pa.timestamp("us", tz="UTC")),
            "request_id": pa.array([call.request_id] * num_rows),
            "row": pa.array(range(num_rows), pa.int32()),
            "model": pa.array([call.model] * num_rows),
            "version": pa.array([call.version] * num_rows, pa.int64()),
            "signature": pa.array([call.signature] * num_rows),
            "protocol": pa.array([call.protocol] * num_rows),
            "seconds": pa.array([seconds] * num_rows, pa.float64()),
        }
        # The inputs of classify and regress are serialized examples, in which no column can be hashed or left out.
        inputs = call.inputs if call.method == "predict" else {}
        for name, array in inputs.items():
            if name in self._settings.omitted or not array.ndim or len(array) != num_rows:
                continue
            values = self._hashed(array) if name in self._settings.hashed else _column(array)
            columns[f"input.{name}"] = values
        for name, array in outputs.items():
            if array.ndim and len(array) == num_rows:
                columns[f"output.{name}"] = _column(array)
        return pa.table(columns)

    def _hashed(self, array: Any) -> pa.Array:
        def digest(value: Any) -> str:
            # Several texts of a row lie elsewhere: the bytes of the array are but their addresses.
            plain = repr(value.tolist()).encode() if array.dtype == object and array.ndim > 1 else value
            content = plain if isinstance(plain, bytes) else np.asarray(plain).tobytes()
            return hmac.new(self._salt, content, "sha256").hexdigest()[:32]

        return pa.array([digest(value) for value in array])

    def _flush(self) -> None:
        for (model, version, _), tables in list(self._parts.items()):
            table = pa.concat_tables(tables)
            try:
                self._write(model, version, table)
            except (OSError, pa.ArrowException) as error:
                self._complain(error, table.num_rows)
            else:
                self.written += table.num_rows
        self._parts.clear()  # dropped when they cannot be written: memory is bounded, the disk is not ours

    def _write(self, model: str, version: int, table: pa.Table) -> None:
        self._num_files += 1
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        # The model's name was checked when it was configured; it still becomes no more than a word here.
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', model)}-{version}-{stamp}-{os.getpid()}-{self._num_files:06d}.parquet"
        temporary = self._settings.directory / f".{name}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                pq.write_table(table, file)
                file.flush()
            temporary.rename(self._settings.directory / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _complain(self, error: BaseException, num_rows: int) -> None:
        self.dropped += num_rows
        if monotonic() - self._last_complaint >= COMPLAINT_SECONDS:
            self._last_complaint = monotonic()
            LOGGER.error("The request log cannot be written (%s); %d rows were dropped so far", error, self.dropped)


def _column(array: Any) -> pa.Array:
    if array.dtype == object:
        values = [
            value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value for value in _rows(array)
        ]
        return pa.array(values)
    plain = array.astype(np.float32) if array.dtype.kind in "Vf" and array.dtype.itemsize == 2 else array
    return pa.array(plain) if plain.ndim == 1 else pa.array(plain.reshape(len(plain), -1).tolist())


def _rows(array: Any) -> list[Any]:
    if array.ndim == 1:
        return list(array)
    return [[value.decode("utf-8", "backslashreplace") for value in row.reshape(-1)] for row in array]


def _salt(directory: Path) -> bytes:
    path = directory / SALT_FILE
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()
