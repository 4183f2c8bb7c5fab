"""Which versions of which models answer: policies, labels, states, polling, hot swap.

One thread changes things (``poll`` and ``configure`` hold a lock); requests read one dictionary that is replaced as a
whole, so they never wait. A new version is loaded before an old one goes, as TensorFlow Serving's availability
preserving policy has it; the old one goes when its last request is answered.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from tf_serving.server.config_files import ModelConfig, VersionPolicy
from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import Metrics
from tf_serving.server.served_version import ServedModel, ServedVersion, State, VersionStatus
from tf_serving.server.settings import ServerSettings
from tf_serving.server.status import Code, ServingError

Loader = Callable[[ModelConfig, int, Path], ServedVersion]
Choice = Callable[[str, Sequence[int]], int | None]

_VERSION = re.compile(r"[0-9]{1,19}", re.ASCII)
UNLOAD_SECONDS = 60.0
TRANSIENT = {Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED}
"""Failures that another try after a while may mend; all others wait for the files to change."""


@dataclass(slots=True)
class _Failure:
    """A version that did not load: as of which files, how often, when to try again."""

    stamp: tuple[tuple[str, int, int], ...]
    tries: int
    next_try: float
    transient: bool


@dataclass(slots=True)
class _Model:
    config: ModelConfig
    labels: Mapping[str, int] = field(default_factory=dict)
    versions: dict[int, ServedVersion] = field(default_factory=dict)
    failures: dict[int, _Failure] = field(default_factory=dict)
    warned: bool = False


@final
class ModelStore:
    """The models of a server.

    Args:
        settings: Of the server.
        loader: Loads a version, or raises ServingError.
        metrics: To tell what is available.
    """

    def __init__(self, settings: ServerSettings, *, loader: Loader, metrics: Metrics) -> None:
        self._settings = settings
        self._load = loader
        self._metrics = metrics
        self._models: dict[str, _Model] = {}
        self._served: dict[str, ServedModel] = {}
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._changing = threading.RLock()
        self._threads: list[threading.Thread] = []

    # What requests ask.

    def is_known(self, name: str) -> bool:
        """Return whether a model of this name is configured."""
        return name in self._served

    def served(self) -> Mapping[str, ServedModel]:
        """Return all configured models."""
        return self._served

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None, choose: Choice | None = None
    ) -> ServedVersion:
        """Return a version, held for the caller, who releases it.

        Args:
            name: Of the model.
            version: A certain one.
            label: The one with this label.
            choose: Asked where neither is given; the latest where it returns None.

        Raises:
            ServingError: NOT_FOUND, or INVALID_ARGUMENT for an unknown label.
        """
        while True:
            found = self._find(name, version, label, choose)
            if found.acquire():
                return found
            # It was unloaded after the look; the next look sees what took its place.

    def _find(self, name: str, version: int | None, label: str | None, choose: Choice | None) -> ServedVersion:
        model = self._served.get(name)
        if label is not None:
            if model is None or label not in model.labels:
                raise ServingError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        found: ServedVersion | None = None
        if model is not None:
            if version is None and choose is not None and model.versions:
                version = choose(name, tuple(model.versions))
            found = model.latest if version is None else model.versions.get(version)
        if found is None:
            raise _not_found(name, version)
        return found

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the state of all versions, highest first, or of one.

        Raises:
            ServingError: NOT_FOUND.
        """
        states = self._states.get(name)
        if not states:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is None:
            return [states[number] for number in sorted(states.copy(), reverse=True)]
        if version not in states:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        return [states[version]]

    def is_ready(self) -> bool:
        """Return whether every configured model answers."""
        return all(model.versions for model in self._served.values())

    # What changes the models.

    def configure(self, configs: Sequence[ModelConfig]) -> list[str]:
        """Serve exactly these models; return the names of those that do not answer.

        Models load first, then labels are set, so one configuration may bring a version and its label.

        Raises:
            ServingError: FAILED_PRECONDITION where a label points at a version that is not available; all labels of
                that model then stay as they were.
        """
        with self._changing:
            wanted = {config.name: config for config in configs}
            gone = [name for name in self._models if name not in wanted]
            for name, config in wanted.items():
                self._models.setdefault(name, _Model(config)).config = config
                # Known from now on, so that requests hear "not found" as for any model that is not loaded yet.
                self._publish(name)
            self.poll()
            for name in gone:
                model = self._models.pop(name)
                self._served = {key: value for key, value in self._served.items() if key != name}
                self._unload(model, list(model.versions))
            for config in configs:
                self._set_labels(config)
            return [name for name in wanted if not self._models[name].versions]

    def poll(self) -> None:
        """Look for versions that came or went, and act."""
        with self._changing:
            for model in list(self._models.values()):
                self._poll_model(model)

    def close(self) -> None:
        """Unload everything."""
        with self._changing:
            models, self._models, self._served = self._models, {}, {}
            for model in models.values():
                self._unload(model, list(model.versions))
            threads = self._threads
        # Without the lock, which a draining thread takes to say that it is done.
        for thread in threads:
            thread.join(UNLOAD_SECONDS)

    def _poll_model(self, model: _Model) -> None:
        name, base_path = model.config.name, model.config.base_path
        try:
            found = _versions(base_path)
        except OSError as error:
            if not model.warned:
                LOGGER.error("Could not find base path %s for servable %s: %s", base_path, name, error.strerror)
            model.warned = True
            return
        wanted = _wanted(model.config.policy, found)
        if not wanted and not model.warned:
            LOGGER.warning(
                "No versions of servable %s found under base path %s. Did you forget to name your leaf directory as a "
                "number (eg. '/1/')?",
                name,
                base_path,
            )
        model.warned = not wanted
        for number in sorted(wanted, reverse=True):
            if not _is_loaded(model, number) and self._may_try(model, number, found[number]):
                self._load_version(model, number, found[number])
        obsolete = [number for number in model.versions if number not in wanted]
        if obsolete and (not wanted or any(number in model.versions for number in wanted)):
            self._publish(name, without=obsolete)
            self._unload(model, obsolete)

    def _may_try(self, model: _Model, number: int, directory: Path) -> bool:
        failure = model.failures.get(number)
        if failure is None or failure.stamp != _stamp(directory):
            return True
        return (
            failure.transient
            and failure.tries <= self._settings.max_num_load_retries
            and time.monotonic() >= failure.next_try
        )

    def _load_version(self, model: _Model, number: int, directory: Path) -> None:
        name = model.config.name
        stamp = _stamp(directory)
        self._set_state(name, VersionStatus(number, State.LOADING))
        started = time.monotonic()
        path = str(directory)
        try:
            version = self._load(model.config, number, directory)
        except ServingError as error:
            before = model.failures.get(number)
            tries = before.tries + 1 if before is not None and before.stamp == stamp else 1
            wait = self._settings.load_retry_interval_micros / 1e6
            model.failures[number] = _Failure(stamp, tries, time.monotonic() + wait, error.code in TRANSIENT)
            self._set_state(name, VersionStatus(number, State.END, error.code, error.message))
            self._metrics.load_attempts.add(path, error.code.name)
            LOGGER.error(
                "Version %d of %s does not load: %s",
                number,
                name,
                error.message,
                extra={"model": name, "version": number},
            )
            return
        seconds = time.monotonic() - started
        model.failures.pop(number, None)
        replaced = model.versions.get(number)
        model.versions[number] = version
        self._metrics.load_attempts.add(path, "success")
        self._metrics.load_latency.add(path, by=int(seconds * 1e6))
        self._metrics.load_seconds.labels(name, str(number)).set(seconds)
        self._set_state(name, VersionStatus(number, State.AVAILABLE))
        self._publish(name)
        if replaced is not None:
            self._start_draining(replaced)
        LOGGER.info(
            "Serving version %d of %s from %s",
            number,
            name,
            path,
            extra={"model": name, "version": number, "seconds": seconds},
        )

    def _unload(self, model: _Model, numbers: Sequence[int]) -> None:
        name = model.config.name
        for number in numbers:
            version = model.versions.pop(number)
            self._set_state(name, VersionStatus(number, State.UNLOADING))
            self._start_draining(version)

    def _start_draining(self, version: ServedVersion) -> None:
        # In a thread of its own: a slow last request must not hold up the loading of others.
        thread = threading.Thread(target=self._drain, args=(version,), daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _drain(self, version: ServedVersion) -> None:
        was_idle = version.close(timeout=UNLOAD_SECONDS)
        with self._changing:
            model = self._models.get(version.name)
            if model is None or version.number not in model.versions:
                self._set_state(version.name, VersionStatus(version.number, State.END))
        how = "after its last request" if was_idle else "although a request still ran"
        LOGGER.info("Unloaded version %d of %s %s", version.number, version.name, how)

    def _publish(self, name: str, *, without: Sequence[int] = ()) -> None:
        model = self._models[name]
        versions = {
            number: model.versions[number] for number in sorted(model.versions, reverse=True) if number not in without
        }
        self._served = {**self._served, name: ServedModel(name, versions, model.labels)}

    def _set_labels(self, config: ModelConfig) -> None:
        model = self._models[config.name]
        for label, number in config.labels.items():
            if number in model.versions or model.labels.get(label) == number:
                continue
            # A label that is new may be ahead of its version where that is allowed; one that moves never is.
            if label in model.labels or not self._settings.allow_version_labels_for_unavailable_models:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, which is not currently "
                    f"available for inference (label {label})",
                )
        model.labels = dict(config.labels)
        self._publish(config.name)

    def _set_state(self, name: str, status: VersionStatus) -> None:
        states = self._states.setdefault(name, {})
        self._states[name] = {**states, status.version: status}
        self._metrics.available.labels(name, str(status.version)).set(status.state is State.AVAILABLE)


def _is_loaded(model: _Model, number: int) -> bool:
    # A configuration may have moved the model to another directory with the same numbers.
    loaded = model.versions.get(number)
    return loaded is not None and loaded.directory.parent == model.config.base_path


def _not_found(name: str, version: int | None) -> ServingError:
    request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {request}")


def _versions(base_path: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    with os.scandir(base_path) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        if _VERSION.fullmatch(entry.name) and int(entry.name) < 1 << 63 and entry.is_dir():
            if int(entry.name) in found:
                LOGGER.warning("Duplicate version directories for %d under %s", int(entry.name), base_path)
            found[int(entry.name)] = Path(entry.path)
    # Moved away after it was listed, its links would look like files: that is no reason to unload anything.
    base_path.stat()
    return found


def _wanted(policy: VersionPolicy, found: Mapping[int, Path]) -> set[int]:
    if policy.kind == "all":
        return set(found)
    if policy.kind == "specific":
        return set(policy.versions) & set(found)
    return set(sorted(found)[-policy.num_versions :])


def _stamp(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file below the directory does."""
    try:
        files = [(str(path.relative_to(directory)), path.stat()) for path in sorted(directory.rglob("*"))]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
