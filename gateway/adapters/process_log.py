"""The process's own log as JSON lines. The access log, which is about exchanges, is `access_log.py`."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """One JSON object in ASCII for each record, whatever its message holds: quotes and line breaks in a text
    from outside can neither break a line nor make one up. A traceback is in `exception`."""

    def __init__(self, worker: int | None = None) -> None:
        """`worker`: which of several processes says it."""
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
