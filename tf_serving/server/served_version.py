"""A version that answers, and how long it may be held."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, final

from tf_serving.server.status import Code

_LOADINGS = itertools.count(1)


class State(IntEnum):
    """Where a version stands, with the numbers of get_model_status.proto."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What is told of a version.

    Attributes:
        version: Its number.
        state: Where it stands.
        code: OK, or why it does not answer.
        message: Of the error, or "".
    """

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@final
class ServedVersion:
    """A loaded version; whoever uses it holds it, and it is closed when nobody does any more.

    Args:
        name: Of the model.
        number: Of the version.
        directory: It was loaded from.
        model: LoadedModel, or what answers likewise.
        batcher: Runs the model for several requests at once, or None.
    """

    def __init__(self, name: str, number: int, directory: Path, model: Any, batcher: Any = None) -> None:
        self.name = name
        self.number = number
        self.version_text = str(number)
        self.loading = next(_LOADINGS)  # tells it from what was loaded before by the same name and number
        self.directory = directory
        self.model = model
        self.batcher = batcher
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        self._idle = threading.Event()

    def acquire(self) -> bool:
        """Hold the version; False when it is being unloaded."""
        with self._lock:
            if self._closing:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """Let go of the version."""
        with self._lock:
            self._users -= 1
            if self._closing and not self._users:
                self._idle.set()

    def close(self, *, timeout: float) -> bool:
        """Refuse new users, wait for the last one, give the memory back.

        Args:
            timeout: In seconds. A version still in use afterwards is left to the garbage collector.

        Returns:
            Whether nobody used it any more.
        """
        with self._lock:
            self._closing = True
            if not self._users:
                self._idle.set()
        is_idle = self._idle.wait(timeout)
        if is_idle:
            self.model.close()
        return is_idle


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The available versions of a model; replaced as a whole, never changed.

    Attributes:
        name: Of the model.
        versions: By number, highest first.
        labels: Version by label; may point at versions that are not available.
        latest: The highest version.
    """

    name: str
    versions: Mapping[int, ServedVersion] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    latest: ServedVersion | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "latest", next(iter(self.versions.values()), None))
