"""Log lines on stderr, one per event: text for people, or JSON for collectors.

A record may have ``extra={"fields": {...}}``: members of the JSON line, ``name=value`` at the end of the text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

ACCESS_LOGGER = "scpalm.access"
# The message of the access log has them, so text does not repeat them.
_IN_MESSAGE = ("method", "path", "status", "seconds")
_PLAIN = re.compile(r"[\w.:/@+{}-]+", re.ASCII)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII, so that no name brings its own line breaks or control characters.
        return json.dumps(line, default=str, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text, and the lines of its exception, if it has one.

    Names in a message come from clients and files. Control characters in them are escaped, so that none can look like
    another line.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = " ".join([_printable(record.message), *_as_text(_fields(record))])
        return super().formatMessage(record)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _as_text(fields: Mapping[str, object]) -> list[str]:
    texts = {name: str(value) for name, value in fields.items() if name not in _IN_MESSAGE}
    return [f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text)}" for name, text in texts.items()]


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def configure_logging(log_format: Literal["text", "json"], level: str = "INFO") -> None:
    """Send the lines of every logger to stderr. Only the command line calls it: a library must not change logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    # Not logging.config or basicConfig(force=True): they also close the handlers of other libraries, and some of those
    # close the stream they write to.
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
