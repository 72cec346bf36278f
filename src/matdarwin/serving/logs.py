"""Logs as JSON lines on stderr: one a request, with its id; never what a user sent."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("matdarwin.serving")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # The kind and place of a fault, not its text, which may quote what a user sent.
            entry["fault"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            entry["trace"] = []
            while trace is not None:
                entry["trace"].append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
                trace = trace.tb_next
        return json.dumps(entry)


def log(level: int, message: str, *, fault: BaseException | None = None, **fields: Any) -> None:
    """Log a line with fields."""
    LOGGER.log(level, message, extra={"fields": fields}, exc_info=fault)


def install() -> None:
    """Send our lines, and those of uvicorn, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("matdarwin.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
