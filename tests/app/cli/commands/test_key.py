"""`scpalm key` prints all that is needed to use the key, and the service accepts it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from scpalm.app.auth.keys import hash_key
from scpalm.app.cli.main import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scpalm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_what_is_printed_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_app: Callable[..., FastAPI],
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, "key", "lab") == 0
    printed = capsys.readouterr()
    key, entry = re.fullmatch(r"key: (\S+)\nentry: (.+)\n", printed.out).groups()  # type: ignore[union-attr]
    assert json.loads(entry) == {"name": "lab", "sha256": hash_key(key)}
    (file,) = re.findall(r'^ +(\{"keys": .+\})$', printed.err, re.MULTILINE)
    (header,) = re.findall(r"curl .*-H '([^']+)'", printed.err)
    assert "X-API-Key" in printed.err and "rows_per_minute" in printed.err
    path = tmp_path / "keys.json"
    path.write_text(file)
    name, value = header.split(": ")
    with TestClient(make_app(api_keys_file=path), base_url="http://localhost") as client:
        assert client.get("/jobs").status_code == 401
        assert client.get("/jobs", headers={name: value}).status_code in (200, 503)


def test_json_has_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "key", "lab", "--json") == 0
    printed = capsys.readouterr()
    made = json.loads(printed.out)
    assert made["entry"]["sha256"] == hash_key(made["key"]) and not printed.err


def test_a_name_that_no_file_may_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "key", "a\nb") == 1
    assert "printable" in capsys.readouterr().err
