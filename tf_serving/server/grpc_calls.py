"""What a gRPC method is to the server, whichever way its bytes come in. No gRPC here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from google.protobuf.message import DecodeError

Metadata = Sequence[tuple[str, "str | bytes"]]
Reply = tuple[int, bytes, bytes]
"""Number of the status code, its text in UTF-8, the message ("" where the code is not OK)."""


class GrpcCall(Protocol):
    """One call of a method.

    Attributes:
        started: When its message was there, of ``perf_counter``.
        trailing: Metadata to send with the status.
    """

    started: float
    trailing: Metadata

    def metadata(self) -> Metadata:
        """Return what the client sent beside the message."""

    def time_remaining(self) -> float:
        """Return the seconds left; very many for no deadline."""

    def peer(self) -> str:
        """Return the client's address."""


@final
class Malformed:
    """Bytes that are no message of the method."""


MALFORMED = Malformed()


@final
class Rpc:
    """A method from bytes to bytes.

    Args:
        parse: Bytes to a message; raises DecodeError.
        finish: Answers a message, or MALFORMED; never raises.
        is_quick: Whether answering takes so little time that no other thread is worth it.
    """

    __slots__ = ("_parse", "finish", "is_quick")

    def __init__(
        self,
        parse: Callable[[bytes], Any],
        finish: Callable[[Any, GrpcCall], Reply],
        *,
        is_quick: Callable[[Any], bool],
    ) -> None:
        self._parse = parse
        self.finish = finish
        self.is_quick = is_quick

    def begin(self, content: bytes) -> Any:
        """Return the message, or MALFORMED."""
        try:
            return self._parse(content)
        except DecodeError:
            return MALFORMED


class Transport(Protocol):
    """Takes calls from the network to methods and answers back."""

    def listen(self, address: str, credentials: Any) -> None:
        """Open an address, in plain text where there are no credentials.

        Raises:
            RuntimeError: It cannot be used.
        """

    def start(self) -> None:
        """Take calls."""

    def stop(self, *, timeout: float) -> None:
        """Take no more calls, let running ones end for so many seconds, then cancel them."""
