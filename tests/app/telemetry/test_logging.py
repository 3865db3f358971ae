from __future__ import annotations

import json
import logging
import sys

import pytest

from scpalm.app.telemetry.logging import JsonFormatter
from tests.app.fakes import Client


def test_a_json_line_has_its_fields_and_the_exception_in_one_line() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "hello %s", "args": ("you",), "status": 200}
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
