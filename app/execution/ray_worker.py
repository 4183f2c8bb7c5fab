"""What runs inside a Ray actor: the same worker as in a local process, with queues where that has a pipe."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import traceback
from typing import Any, final

from app.execution.messages import Reply, Request
from app.execution.worker import Worker


@final
class QueueChannel:
    """The worker's end of two queues."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Reply] = queue.SimpleQueue()

    def send(self, obj: Any, /) -> None:
        """Keeps a message until the coordinator asks for it."""
        self._outbox.put(obj)

    def recv(self) -> Any:
        """Waits for the next message of the coordinator."""
        return self._inbox.get()

    def poll(self) -> bool:
        """Whether a message has arrived."""
        return not self._inbox.empty()

    def deliver(self, request: Request) -> None:
        """Hands a message of the coordinator to the worker."""
        self._inbox.put(request)

    def collect(self, seconds: float) -> list[Reply]:
        """Returns what the worker has said, waiting at most `seconds` for the first word."""
        try:
            said = [self._outbox.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self._outbox.empty():
            said.append(self._outbox.get())
        return said


class RayWorker:
    """The actor: passes messages on while the worker trains in a thread of its own.

    Args:
        folder: Where the command runs: a space of the user's own is imported from there.
    """

    def __init__(self, folder: str) -> None:
        # Last, so that it shadows nothing of ours.
        sys.path.append(folder)
        self._channel = QueueChannel()
        threading.Thread(target=self._serve, daemon=True).start()

    def place(self) -> tuple[int, str]:
        """Returns the process and the machine that this actor is."""
        return os.getpid(), socket.gethostname()

    def tell(self, request: Request) -> None:
        """Takes a message of the coordinator."""
        self._channel.deliver(request)

    def listen(self, seconds: float) -> list[Reply]:
        """Returns what the worker has said, waiting at most `seconds` for the first word."""
        return self._channel.collect(seconds)

    def _serve(self) -> None:
        try:
            import tensorflow as tf

            del tf  # imported now so that the first request does not wait for it
            Worker(self._channel).serve()
        except BaseException:
            # A worker that cannot go on must not look like one that thinks.
            traceback.print_exc()
            os._exit(1)
