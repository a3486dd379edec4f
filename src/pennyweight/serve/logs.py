"""Structured logs: a JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["log_event", "log_to_stderr"]

_LOGGER = logging.getLogger("pennyweight.serve")


class _JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, which no value can break into two."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of an exception, only its type, as its message can hold a text."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
        return json.dumps(fields)


def log_event(event: str, *, is_error: bool = False, **fields: Any) -> None:
    """Log an event with its fields."""
    level = logging.ERROR if is_error else logging.INFO
    _LOGGER.log(level, event, extra={"fields": fields})


def log_to_stderr() -> None:
    """Write the logs of the server, and warnings of uvicorn, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    for name, level in (("pennyweight.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
