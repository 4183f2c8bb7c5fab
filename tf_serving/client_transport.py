"""What the client needs of a protocol, and how it tries again (no TensorFlow here)."""

from __future__ import annotations

import abc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tf_serving.client_errors import RETRIED, Code, ServingError, error_of
from tf_serving.tensor_values import Array, Signature

_T = TypeVar("_T")

API_KEY_HEADER = "x-api-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """Which model a call is for.

    Attributes:
        model: Its name.
        version: Its version; None for the newest.
        label: Label of a version, such as ``canary``; "" for none.
        signature: Name of the signature.
    """

    model: str
    version: int | None = None
    label: str = ""
    signature: str = "serving_default"

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("Expected the name of a model, received an empty one.")
        if self.version is not None and self.label:
            raise ValueError(f"Expected a version or a label, received both {self.version} and {self.label!r}.")


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """State of one version.

    Attributes:
        version: Its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Why it could not be loaded; "" if nothing is wrong.
    """

    version: int
    state: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When a call is tried again: exponential waiting with full jitter, and never beyond the deadline.

    Attributes:
        attempts: Calls at most, the first included; 1 for none after it.
        first_wait: Longest wait after the first attempt, in seconds; doubled after each.
        longest_wait: Longest wait of all, in seconds.
    """

    attempts: int = 4
    first_wait: float = 0.1
    longest_wait: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"Expected at least one attempt, received {self.attempts}.")
        if not 0 <= self.first_wait <= self.longest_wait:
            raise ValueError(
                f"Expected 0 <= first_wait <= longest_wait, received {self.first_wait} and {self.longest_wait}."
            )

    def call(self, attempt: Callable[[float], _T], *, timeout: float) -> _T:
        """Return what an attempt returns, trying again after codes that are safe.

        Args:
            attempt: Takes the seconds that are left.
            timeout: Seconds for all attempts together.

        Raises:
            ServingError: The last attempt's, or that of the deadline.
        """
        deadline = time.monotonic() + timeout
        for number in range(1, self.attempts + 1):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return attempt(left)
            except ServingError as error:
                wait = random.uniform(0, min(self.longest_wait, self.first_wait * 2 ** (number - 1)))
                wait = max(wait, error.retry_after)
                left = deadline - time.monotonic()
                if error.code not in RETRIED or number == self.attempts or wait >= left:
                    raise
                time.sleep(wait)
        raise error_of(Code.DEADLINE_EXCEEDED, f"No answer came within {timeout:g} seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a server is and how to be let in.

    Attributes:
        host: Name or address.
        port: Port.
        secure: Whether TLS is used.
        ca_certificate: PEM file of the authority that signed the server's certificate; None for the system's.
        headers: Sent with every call.
    """

    host: str
    port: int
    secure: bool
    ca_certificate: Path | None
    headers: Mapping[str, str]

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


class Transport(abc.ABC):
    """One protocol. A method is one attempt, with the seconds it may take; safe to use from several threads."""

    @abc.abstractmethod
    def predict(
        self, call: ModelCall, arrays: Mapping[str, Array], *, signature: Signature, timeout: float
    ) -> dict[str, Array]:
        """Return the outputs by name."""

    @abc.abstractmethod
    def signatures(self, call: ModelCall, *, timeout: float) -> dict[str, Signature]:
        """Return the signatures of a model by name."""

    @abc.abstractmethod
    def status(self, call: ModelCall, *, timeout: float) -> list[VersionStatus]:
        """Return the versions, newest first."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections."""
