from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from scpalm.app.telemetry.logging import JsonFormatter, TextFormatter, configure_logging
from tests.app.fakes import Client


def test_a_json_line_has_its_fields_and_the_exception_in_one_line() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "hello %s", "args": ("you",), "fields": {"status": 200}}
    )
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record.exc_info = sys.exc_info()
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert (line["message"], line["level"], line["status"]) == ("hello you", "info", 200)
    assert "two\nlines" in line["exception"]
    assert line["time"].endswith("+00:00")


def test_requests_are_logged_once_and_good_probes_are_not(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scpalm.access"):
        client.get("/models")
        client.get("/health/live")
        client.get("/metrics")
        client.get("/forged%0A200")
    lines = [record.getMessage() for record in caplog.records if record.name == "scpalm.access"]
    assert len(lines) == 2
    assert lines[0].startswith("GET '/models' 200")
    assert "\n" not in lines[1] and " 404 " in lines[1]


def _line(message: str, *arguments: object, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": message, "args": arguments, "fields": fields}
    )
    return TextFormatter().format(record)


def test_a_line_of_text_has_its_fields() -> None:
    text = _line("GET %r", "/jobs", path="/jobs", status=200, key="lab", rows=3, route="/jobs/{job_id}", parse_ms=1.5)
    assert text.endswith("GET '/jobs' key=lab rows=3 route=/jobs/{job_id} parse_ms=1.5")


@pytest.mark.parametrize(
    "forged", ["a\n2026-01-01 INFO root fine", "a\r\nb", "a\x1b[2Kb", "a\u2028b", "a b=c", 'a"b', ""]
)
def test_no_name_can_forge_a_line_or_a_field(forged: str) -> None:
    text = _line("read by %s", forged, key=forged)
    assert text.isprintable() and len(text.splitlines()) == 1
    assert text.rsplit(" key=", 1)[1] == json.dumps(forged)


def test_the_lines_of_an_exception_are_kept() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "ERROR", "msg": "failed"})
    try:
        raise ValueError("reason")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert len(TextFormatter().format(record).splitlines()) > 2


def test_handlers_of_other_libraries_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing(logging.StreamHandler[io.StringIO]):
        def close(self) -> None:
            self.stream.close()

    theirs = Closing(io.StringIO())
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    levels = root.level, uvicorn.level
    monkeypatch.setattr(root, "handlers", [theirs])
    try:
        configure_logging("text")
        assert root.handlers != [theirs] and len(root.handlers) == 1
        assert not theirs.stream.closed
    finally:
        root.setLevel(levels[0])
        uvicorn.setLevel(levels[1])
