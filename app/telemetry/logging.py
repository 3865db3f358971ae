"""Logs on stderr: one line an event, as text for people or JSON for collectors."""

from __future__ import annotations

import logging
import logging.config
from datetime import UTC, datetime
from typing import Literal

import orjson

ACCESS_LOGGER = "scpalm.access"
# What `extra=` may add to a line.
_FIELDS = ("method", "path", "status", "seconds", "client")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

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
    """Send every logger's lines to stderr. Called by the command line; a library user's own set-up is left alone."""
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
