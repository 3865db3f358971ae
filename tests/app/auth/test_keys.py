from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scpalm.app.auth.keys import KeyRing, KeysFileError, hash_key, new_key
from scpalm.app.errors import ForbiddenError, MissingKeyError


def write(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    return path


def entry(name: str, key: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hash_key(key), **more}


def test_keys_are_looked_up_only_by_their_hash(tmp_path: Path) -> None:
    secret, made = new_key("lab")
    ring = KeyRing(write(tmp_path / "keys.json", dict(made), entry("other", "second")))
    assert ring.find(secret).name == "lab" and ring.find("second").name == "other"
    assert secret not in (tmp_path / "keys.json").read_text()
    for wrong in (None, "", "third", made["sha256"]):
        with pytest.raises(MissingKeyError):
            ring.find(wrong)


def test_the_keys_file_is_reloaded_when_it_changes_unless_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.auth.keys._CHECK_SECONDS", 0.0)
    path = write(tmp_path / "keys.json", entry("lab", "first", rows_per_minute=60))
    ring = KeyRing(path)
    assert ring.find("first").cells_per_minute == 60
    write(path, entry("lab", "first", rows_per_minute=70), entry("new", "second"))
    os.utime(path, ns=(1, 1))
    assert ring.find("second").name == "new"
    assert ring.find("first").cells_per_minute == 70
    path.write_text("{")
    assert ring.find("second").name == "new"
    path.unlink()
    assert ring.find("second").name == "new"
    write(path, entry("lab", "first"))
    with pytest.raises(MissingKeyError):
        ring.find("second")


def test_a_key_is_replaced_without_a_pause(tmp_path: Path) -> None:
    both = {"name": "lab", "sha256": [hash_key("old"), hash_key("new")], "rows_per_minute": 60}
    ring = KeyRing(write(tmp_path / "keys.json", both, entry("other", "third")))
    assert {ring.find(key).name for key in ("old", "new")} == {"lab"} and ring.find("third").name == "other"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [{"name": "a"}]}',
        '{"keys": [{"name": "a", "sha256": "plain"}]}',
        json.dumps({"keys": [entry("a", "x"), entry("a", "y")]}),
        json.dumps({"keys": [entry("a", "x"), entry("b", "x")]}),
        json.dumps({"keys": [{"name": "a", "sha256": []}]}),
        json.dumps({"keys": [{"name": "a", "sha256": [hash_key("x"), 3]}]}),
        json.dumps({"keys": [entry("a", "x"), {"name": "b", "sha256": [hash_key("y"), hash_key("x")]}]}),
        json.dumps({"keys": [entry("a", "x", rows_per_minute=0)]}),
        json.dumps({"keys": [entry("a", "x", bytes_per_minute="many")]}),
        json.dumps({"keys": [entry("a", "x", paths="/embed")]}),
        json.dumps({"keys": [entry("a\nb", "x")]}),
        json.dumps({"keys": [entry("a", "x", admin="yes")]}),
        json.dumps({"keys": [entry("a", "x", max_jobs=0)]}),
        json.dumps({"keys": [entry("a", "x", max_result_bytes=1.5)]}),
    ],
)
def test_an_invalid_keys_file_is_a_one_line_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(KeysFileError) as caught:
        KeyRing(tmp_path / "keys.json")
    assert "\n" not in str(caught.value)


def test_a_refusal_names_the_path(tmp_path: Path) -> None:
    ring = KeyRing(write(tmp_path / "keys.json", entry("lab", "first", paths=["/embed"])))
    ring.find("first").check_path("/embed")
    with pytest.raises(ForbiddenError, match="/jobs"):
        ring.find("first").check_path("/jobs")
