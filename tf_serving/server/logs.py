"""Structured logs: one JSON object a line on standard error, or plain text. No TensorFlow here."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO, final

LOGGER = logging.getLogger("tamiz.serving")

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@final
class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, message, and what was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


@final
class _StandardError(logging.Handler):
    """Writes lines to standard error as it is at that moment.

    A stream that is kept may be closed by whoever had put it there, and the threads that unload models log to the end.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; where nobody can read it, nothing."""
        line = self.format(record)
        stream: TextIO | None = sys.stderr
        if stream is None:
            return
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # closed


def set_up(log_format: str) -> None:
    """Send the server's log to standard error.

    Args:
        log_format: "json" or "text"; "auto" is text where a person reads along.
    """
    handler = _StandardError()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(text if is_text else JsonFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
