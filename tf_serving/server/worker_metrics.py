"""The metrics of all processes behind one port, whichever of them is asked. No TensorFlow here.

Every worker writes its page to a folder once a second; who is asked adds the others' pages to its own. The counts of a
worker that died are kept by the process that watches, so that no sum ever falls; its gauges end with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from tf_serving.server.logs import LOGGER
from tf_serving.server.metrics import Metrics

WRITE_SECONDS = 1.0
COMPLAINT_SECONDS = 60.0
GONE = "gone"
_LEAST = ("tamiz_model_available", "process_start_time_seconds")
_MOST = ("tamiz_model_load_seconds", "process_max_fds")


@dataclass(slots=True)
class _Family:
    """One metric of a page: its first lines, whether it counts, and its series."""

    heads: list[str]
    is_gauge: bool
    values: dict[str, float] = field(default_factory=dict)


@final
class WorkerMetrics:
    """The page of one worker that tells of all.

    Args:
        metrics: Of this process.
        folder: Shared by the workers of one server.
    """

    def __init__(self, metrics: Metrics, folder: Path) -> None:
        self._metrics = metrics
        self._folder = folder
        self._own = folder / str(os.getpid())
        self._last_complaint = float("-inf")
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write_often, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._write()
        self._thread.start()

    def close(self) -> None:
        """Write once more and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def page(self, *, compatible_only: bool = False) -> bytes:
        """Return the sums; those of the other processes are at most a second old."""
        # Written before it is told: what somebody has read is never taken back when this worker dies.
        pages = {self._own.name: self._write()}
        for path in self._folder.glob("[0-9]*"):
            if path.name not in pages and path.suffix == "" and Path("/proc", path.name).exists():
                pages[path.name] = _text(path)
        # After the others: a worker that died meanwhile is in its file, in this one, or in both.
        gone, merged = _gone(self._folder)
        kept = [text for name, text in pages.items() if name not in merged]
        return added([*kept, gone], compatible_only=compatible_only).encode()

    def _write_often(self) -> None:
        while not self._stopping.wait(WRITE_SECONDS):
            self._write()
        self._write()

    def _write(self) -> str:
        with self._writing:
            text = self._metrics.page().decode()
            try:
                _replace(self._own, text)
            except OSError as error:
                if time.monotonic() - self._last_complaint >= COMPLAINT_SECONDS:
                    self._last_complaint = time.monotonic()
                    LOGGER.error("Metrics cannot be shared with the other workers: %s", error.strerror)
        return text


def keep_counts(folder: Path, worker: int) -> None:
    """Keep what a worker counted before it died.

    Args:
        folder: Of the metrics.
        worker: Its process id.
    """
    path = folder / str(worker)
    gone, merged = _gone(folder)
    text = added([_counts_only(_text(path)), gone])
    try:
        _replace(folder / GONE, "".join(f"#merged {name}\n" for name in [*merged, path.name]) + text)
        path.unlink(missing_ok=True)
    except OSError as error:
        LOGGER.error("The counts of a worker that ended are lost: %s", error.strerror)


def added(pages: Iterable[str], *, compatible_only: bool = False) -> str:
    """Return one page with the sums of several.

    Args:
        pages: In Prometheus' text format.
        compatible_only: Whether only series under TensorFlow Serving's names are wanted.
    """
    families: dict[str, _Family] = {}
    for page in pages:
        for name, family in _families(page).items():
            known = families.setdefault(name, _Family(family.heads, family.is_gauge))
            for series, value in family.values.items():
                known.values[series] = _combined(name, known.values.get(series), value)
    lines = []
    for name, family in families.items():
        if name.startswith(":tensorflow:") or not compatible_only:
            lines += [*family.heads, *(f"{series} {value:.17g}" for series, value in family.values.items())]
    return "\n".join(lines) + "\n"


def _combined(name: str, one: float | None, other: float) -> float:
    if one is None:
        return other
    if name in _LEAST or name.endswith("_created"):
        return min(one, other)
    return max(one, other) if name in _MOST else one + other


def _families(page: str) -> dict[str, _Family]:
    found: dict[str, _Family] = {}
    name, heads = "", list[str]()
    for line in page.splitlines():
        if line.startswith("# "):
            heads.append(line)
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:4]
                found[name] = _Family(heads, kind == "gauge")
                heads = []
        elif line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[name].values[series] = float(value)
    return found


def _counts_only(page: str) -> str:
    lines = []
    for family in _families(page).values():
        if not family.is_gauge:
            lines += [*family.heads, *(f"{series} {value:.17g}" for series, value in family.values.items())]
    return "\n".join(lines)


def _gone(folder: Path) -> tuple[str, list[str]]:
    text = _text(folder / GONE)
    return text, [line.split()[1] for line in text.splitlines() if line.startswith("#merged ")]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
