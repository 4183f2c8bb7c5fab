"""Run the server: in this process, or as several processes behind the same ports. No TensorFlow before it is needed.

``run`` is what a command line calls. With several workers the first process only watches: it starts the others, starts
one again that died, and passes SIGTERM on. Every worker loads all models; the system spreads connections among them.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tf_serving.server.flags import parse_flags, usage
from tf_serving.server.logs import LOGGER, set_up
from tf_serving.server.memory import keep_freed_memory
from tf_serving.server.preflight import Preflight
from tf_serving.server.preflight_child import fork_child
from tf_serving.server.quiet import find_devices, import_tensorflow
from tf_serving.server.settings import Limits, ServerSettings
from tf_serving.server.status import ConfigurationError
from tf_serving.server.worker_metrics import keep_counts

WORKER = "TAMIZ_SERVING_WORKER"
"""Holds the id of the process that watches; it may be gone before a worker can ask who its parent is."""
METRICS_FOLDER = "TAMIZ_SERVING_METRICS_FOLDER"
FAILED = "Failed to start server. Error:"
RESTART_SECONDS = 1.0
PARENT_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with TensorFlow Serving's flags; return the exit code.

    Args:
        arguments: Without the program's name; those of the process when missing.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        command = parse_flags(given)
    except ConfigurationError as error:
        return _failed(error, strict={"--strict_compat", "--strict-compat"}.intersection(given) != set())
    for note in command.notes:
        print(note, file=sys.stderr)
    if command.version:
        return _print_version()
    if command.help:
        print(usage())
        return 0
    return run(command.settings)


def run(settings: ServerSettings, *, stopping: threading.Event | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 after a drain, 2 where the server cannot start.

    Args:
        settings: All of it.
        stopping: Ends the server when set, beside the signals.
    """
    set_up(settings.log_format)
    stop = stopping or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    if settings.workers > 1 and WORKER not in os.environ:
        if settings.extensions != ServerSettings().extensions:
            print("Extensions need one process; start without --workers.", file=sys.stderr)
            return 2
        return _supervise(settings, stop)
    return _serve(settings, stop)


def _serve(settings: ServerSettings, stop: threading.Event) -> int:
    LOGGER.info("Starting; the ports open when the models are loaded")
    keep_freed_memory()
    import_tensorflow()
    from tf_serving.server.app import Server

    # What was imported stays: the collector need not look at it again, which takes a tenth of a second each time.
    # Models come later and are collected as ever.
    gc.collect()
    gc.freeze()
    # Before any thread starts and any device is opened: a child may be split off only until then.
    child = fork_child() if settings.enable_preflight else None
    if WORKER in os.environ:
        threading.Thread(target=_end_with_parent, args=(int(os.environ[WORKER]), stop), daemon=True).start()
    preflight = Preflight(child) if settings.enable_preflight else None
    find_devices()
    server: Server | None = None
    try:
        folder = os.environ.get(METRICS_FOLDER)
        server = Server(settings, preflight=preflight, metrics_folder=Path(folder) if folder else None)
        _start_until(server, stop)
    except ConfigurationError as error:
        if server is not None:
            server.stop()
        elif preflight is not None:
            preflight.close()
        return _failed(error, strict=settings.strict_compat)
    stop.wait()
    LOGGER.info("Draining")
    server.stop()
    return 0


def _failed(error: ConfigurationError, *, strict: bool) -> int:
    """Say why the server does not start; return the exit code."""
    text = str(error)
    if strict and not text.startswith(FAILED):
        text = f"{FAILED} INVALID_ARGUMENT: {text}"
    print(text, file=sys.stderr)
    return 255 if strict else 2


def _end_with_parent(parent: int, stop: threading.Event) -> None:
    # A killed parent cannot tell its workers, and nobody would watch them.
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    stop.set()


def _start_until(server: object, stop: threading.Event) -> None:
    # A start may wait for a first version for ever; a signal ends the wait.
    watcher = threading.Thread(target=lambda: (stop.wait(), server._stopping.set()), daemon=True)  # type: ignore[attr-defined]
    watcher.start()
    server.start()  # type: ignore[attr-defined]


def _supervise(settings: ServerSettings, stop: threading.Event) -> int:
    try:
        folder = tempfile.TemporaryDirectory(prefix="tamiz-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        cannot = ConfigurationError(f"Workers need a folder to share their metrics, and none can be made: {error}")
        return _failed(cannot, strict=settings.strict_compat)
    with folder:
        return _watch_workers(settings, stop, Path(folder.name))


def _watch_workers(settings: ServerSettings, stop: threading.Event, metrics_folder: Path) -> int:
    command = [sys.executable, "-m", "tf_serving.server", *as_flags(settings)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        WORKER: str(os.getpid()),
        METRICS_FOLDER: str(metrics_folder),
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment)

    workers = [start() for _ in range(settings.workers)]
    started = [time.monotonic()] * len(workers)
    code = 0
    while not stop.wait(0.1):
        for index, worker in enumerate(workers):
            if worker.poll() is None:
                continue
            if worker.returncode in (2, 255):
                code = worker.returncode  # it said why; another try would say the same
                stop.set()
                break
            LOGGER.error("Worker %d ended with code %d and is started again", index, worker.returncode)
            keep_counts(metrics_folder, worker.pid)
            stop.wait(max(0.0, RESTART_SECONDS - (time.monotonic() - started[index])))
            workers[index], started[index] = start(), time.monotonic()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait()
    return code


def as_flags(settings: ServerSettings) -> list[str]:
    """Return a command line that says the same as the settings, without extensions."""
    flags = []
    for prefix, values, defaults in (("", settings, ServerSettings()), ("max_", settings.limits, Limits())):
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            if field.name not in ("limits", "extensions") and value != getattr(defaults, field.name):
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                flags.append(f"--{prefix}{field.name}={text}")
    return flags


def _print_version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    for name, package in (("TensorFlow ModelServer", "tamiz"), ("TensorFlow Library", "tensorflow")):
        try:
            print(f"{name}: {version(package)}")
        except PackageNotFoundError:
            print(f"{name}: not installed")
    return 0
