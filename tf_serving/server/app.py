"""The server of one process: what it is made of, its start and its end (imports TensorFlow)."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from socket import socket
from typing import Any, final

import uvloop

from tf_serving.server.config_files import (
    ModelConfig,
    TlsFiles,
    read_model_config,
    read_monitoring_path,
    read_tls,
)
from tf_serving.server.grpc_service import GrpcServer
from tf_serving.server.http_protocol import HttpServer
from tf_serving.server.inference import Inference, Models
from tf_serving.server.loading import VersionLoader
from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import MONITORING_PATH, Metrics
from tf_serving.server.model_store import ModelStore
from tf_serving.server.ports import bind
from tf_serving.server.prediction_log import PredictionLogs
from tf_serving.server.preflight import Preflight
from tf_serving.server.rest import Rest
from tf_serving.server.settings import ServerSettings
from tf_serving.server.status import ConfigurationError, ServingError
from tf_serving.server.worker_metrics import WorkerMetrics

WAIT_SECONDS = 0.5


@final
class Server:
    """Everything one process serves with.

    Args:
        settings: All of it.
        preflight: Loads a version in another process first; None to go without.
        metrics_folder: Where the processes of one server share their metrics; None for a single one.

    Raises:
        ConfigurationError: Settings, files or ports that cannot be used.
    """

    def __init__(
        self, settings: ServerSettings, *, preflight: Preflight | None = None, metrics_folder: Path | None = None
    ) -> None:
        self.settings = settings
        self._tls = read_tls(Path(settings.ssl_config_file)) if settings.ssl_config_file else None
        self._context = _tls_context(self._tls) if self._tls is not None else None
        self._configs = configured_models(settings)
        monitoring_path = _monitoring_path(settings)
        self.metrics = Metrics()
        self._worker_metrics = WorkerMetrics(self.metrics, metrics_folder) if metrics_folder is not None else None
        self._preflight = preflight
        loader = VersionLoader(settings, metrics=self.metrics, preflight=self._preflight)
        # After everything that may be wrong with files, so that nothing is left open.
        self._listener = self._bind()
        if self._preflight is not None:
            self._preflight.start()
        self.store = ModelStore(settings, loader=loader, metrics=self.metrics)
        self._logs = PredictionLogs(self.metrics)
        self.inference = Inference(
            self.store,
            extensions=settings.extensions,
            metrics=self.metrics,
            max_rows=settings.limits.batch_rows,
            logs=self._logs,
        )
        self.models = Models(self.store)
        self._rest = Rest(
            self.inference,
            settings=settings,
            monitoring_path=monitoring_path,
            metrics_page=(self._worker_metrics or self.metrics).page,
        )
        self._http = HttpServer(
            self._rest.answer,
            answer_quickly=self._rest.answer_quickly,
            limits=settings.limits,
            num_threads=_rest_threads(settings),
            metrics=self.metrics,
            access_log=settings.access_log,
        )
        self._grpc: GrpcServer | None = None
        if settings.port or settings.grpc_socket_path:
            self._grpc = GrpcServer(self.inference, settings=settings, reload=self.reload)
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="poller", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None

    def _bind(self) -> socket | None:
        settings = self.settings
        shared = settings.workers > 1
        if settings.port:
            # Only to see that it is free: gRPC binds by itself, and its message names nobody.
            bind(settings.host, settings.port, shared=shared, purpose="gRPC").close()
        if not settings.rest_api_port:
            return None
        return bind(settings.host, settings.rest_api_port, shared=shared, purpose="REST")

    def start(self) -> None:
        """Load the models, then listen; returns when requests are answered.

        Raises:
            ConfigurationError: A model that is there does not load, or a label has no version.
        """
        try:
            self._load_models()
        except ServingError as error:
            raise ConfigurationError(f"Failed to start server. Error: {error.code.name}: {error.message}") from error
        self._logs.configure(self._configs)
        if self._worker_metrics is not None:
            self._worker_metrics.start()
        for background in self.settings.extensions.background:
            background.start(self.models)
        if self._grpc is not None:
            self._grpc.start(self._tls)
            self._grpc.set_ready(True)
        if self._listener is not None:
            self._loop = uvloop.new_event_loop()
            self._loop_thread = threading.Thread(target=self._run_loop, name="rest", daemon=True)
            self._loop_thread.start()
            self._in_loop(self._http.start(self._listener, self._context))
        self._poller.start()
        LOGGER.info("%s", self.start_line())

    def start_line(self) -> str:
        """Return what is served where."""
        settings = self.settings
        models = ", ".join(
            f"{name} ({'version' if len(model.versions) == 1 else 'versions'} {', '.join(map(str, model.versions))})"
            for name, model in self.store.served().items()
        )
        places = []
        if settings.rest_api_port:
            scheme = "https" if self._tls else "http"
            places.append(f"REST on {scheme}://{settings.host}:{settings.rest_api_port}/v1/models")
        if settings.port:
            places.append(f"gRPC on {settings.host}:{settings.port}")
        if settings.grpc_socket_path:
            places.append(f"gRPC on unix:{settings.grpc_socket_path}")
        return f"Serving {models or 'no model yet'}: {', '.join(places)}"

    def reload(self, configs: tuple[ModelConfig, ...]) -> list[str]:
        """Serve exactly these models; return those that do not answer.

        Raises:
            ServingError: A label has no version.
        """
        missing = self.store.configure(configs)
        self._configs = configs
        self._logs.configure(configs)
        return missing

    def stop(self) -> None:
        """Answer what is running, refuse what comes, close everything."""
        seconds = self.settings.drain_seconds
        self._stopping.set()
        self._rest.is_draining = True
        drained: list[threading.Thread] = []
        if self._grpc is not None:
            drained.append(threading.Thread(target=self._grpc.stop, kwargs={"timeout": seconds}))
            drained[-1].start()
        if self._loop is not None and self._loop_thread is not None:
            self._in_loop(self._http.stop(timeout=seconds))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join()
            self._loop.close()
        elif self._listener is not None:
            self._listener.close()
        for thread in drained:
            thread.join()
        if self._poller.is_alive():
            self._poller.join(seconds)
        for background in self.settings.extensions.background:
            background.close()
        self._logs.close()
        if self._worker_metrics is not None:
            self._worker_metrics.close()
        if self._preflight is not None:
            self._preflight.close()
        self.store.close()
        LOGGER.info("Stopped")

    def _load_models(self) -> None:
        missing = self.store.configure(self._configs)
        while missing and not self._stopping.is_set():
            for name in missing:
                self._check_missing(name)
            # As TensorFlow Serving: the ports stay closed until there is a version.
            self._stopping.wait(WAIT_SECONDS)
            missing = self.store.configure(self._configs)

    def _check_missing(self, name: str) -> None:
        base_path = next(config.base_path for config in self._configs if config.name == name)
        if not self.settings.strict_compat:
            try:
                next(base_path.iterdir(), None)
            except OSError as error:
                raise ConfigurationError(
                    f"Could not find base path {base_path} for servable {name}: {error.strerror}"
                ) from error
        try:
            failed = self.store.status(name)
        except ServingError:
            return  # no version yet
        raise ConfigurationError(
            f"Failed to start server. Error: UNKNOWN: 1 model(s) did not become available: {{{name}}}: "
            f"{failed[0].message}"
        )

    def _poll(self) -> None:
        settings = self.settings
        files_every = settings.file_system_poll_wait_seconds
        config_every = float(settings.model_config_file_poll_wait_seconds) if settings.model_config_file else 0.0
        next_files, next_config = time.monotonic() + files_every, time.monotonic() + config_every
        waits = [seconds for seconds in (files_every, config_every) if seconds]
        if not waits:
            return
        while not self._stopping.wait(min(waits)):
            now = time.monotonic()
            if config_every and now >= next_config:
                next_config = now + config_every
                self._guarded(self._reread)
            if files_every and now >= next_files:
                next_files = now + files_every
                self._guarded(self.store.poll)

    def _reread(self) -> None:
        self.reload(read_model_config(Path(self.settings.model_config_file)))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (ConfigurationError, ServingError) as error:
            LOGGER.error("The models stay as they are: %s", error)
        except Exception:
            LOGGER.exception("Looking for new versions failed")

    def _run_loop(self) -> None:
        if self._loop is not None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_forever()

    def _in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            raise RuntimeError("The event loop does not run.")
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def configured_models(settings: ServerSettings) -> tuple[ModelConfig, ...]:
    """Return the models to serve.

    Raises:
        ConfigurationError: The configuration file is not right, or the base path not absolute.
    """
    if settings.model_config_file:
        return read_model_config(Path(settings.model_config_file))
    base_path = Path(settings.model_base_path)
    return (ModelConfig(name=settings.model_name, base_path=base_path.absolute()),)


def _monitoring_path(settings: ServerSettings) -> str | None:
    if settings.monitoring_config_file:
        return read_monitoring_path(Path(settings.monitoring_config_file))
    return None if settings.strict_compat else MONITORING_PATH


def _rest_threads(settings: ServerSettings) -> int:
    # A thread waits for every request of a batch, so there have to be as many as a batch may have.
    return max(settings.rest_api_num_threads, 32) if settings.enable_batching else settings.rest_api_num_threads


def _tls_context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # The library reads keys from files only; the directory is nobody else's and gone at once.
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_bytes(tls.server_cert)
            key.touch(mode=0o600)
            key.write_bytes(tls.server_key)
            context.load_cert_chain(certificate, key)
        if tls.custom_ca:
            context.load_verify_locations(cadata=tls.custom_ca.decode())
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"server_key and server_cert cannot be used together: {error}") from error
    if tls.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
