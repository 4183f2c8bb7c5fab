"""Work that a request hands on and never waits for: a bounded queue with a thread of its own. No TensorFlow here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

Item = TypeVar("Item")


class _End:
    """Tells the thread that no more comes."""


_END: Final = _End()


@final
class WorkQueue(Generic[Item]):
    """Takes items from any thread and works on them in one.

    Args:
        work: Takes an item; must not raise.
        name: Of the thread.
        most: Items that may wait.
        tick: Called after every item, and when none came for a while.
        tick_seconds: That while.
        finish: Called at the end.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        *,
        name: str,
        most: int,
        tick: Callable[[], None] = lambda: None,
        tick_seconds: float = 3_600.0,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._tick = tick
        self._tick_seconds = tick_seconds
        self._finish = finish
        self._queue: queue.Queue[Item | _End] = queue.Queue(most)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def offer(self, item: Item) -> bool:
        """Hand an item on; False where too many wait. Takes microseconds."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def close(self, *, seconds: float) -> None:
        """End after what waits, or after so many seconds."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(_END, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=self._tick_seconds)
            except queue.Empty:
                self._tick()
                continue
            if isinstance(item, _End):
                self._finish()
                return
            self._work(item)
            self._tick()
