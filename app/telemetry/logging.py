"""Log lines on stderr, one per event: text for people, or JSON for collectors."""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Literal

import orjson

ACCESS_LOGGER = "scpalm.access"
# The fields that `extra=` may add to a JSON line.
_FIELDS = ("method", "path", "status", "seconds", "client")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logging(log_format: Literal["text", "json"], level: str = "INFO") -> None:
    """Send the lines of every logger to stderr. Only the command line calls it: a library must not change logging."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {"format": "%(asctime)s %(levelname)-7s %(name)s %(message)s"},
                "json": {"()": JsonFormatter},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": log_format}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {"uvicorn": {"level": "WARNING"}},
        }
    )
