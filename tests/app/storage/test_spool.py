from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scpalm.app.errors import StorageFullError
from scpalm.app.storage.spool import Spool, SpoolError


@pytest.fixture(params=["folder", "store"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool") if request.param == "folder" else f"memory://{tmp_path}")


def test_payloads_are_kept_until_they_are_removed(spool: Spool) -> None:
    names = [spool.put(b"one"), spool.put(b"two")]
    assert [spool.get(name) for name in names] == [b"one", b"two"]
    spool.remove(names[0])
    spool.remove(names[0])
    with pytest.raises(SpoolError, match="SCPALM_SPOOL_URL"):
        spool.get(names[0])
    assert spool.get(names[1]) == b"two"


def test_a_message_cannot_name_a_path(spool: Spool) -> None:
    for name in ("../secret", "/etc/passwd", "", "0" * 33):
        with pytest.raises(SpoolError, match="does not name a payload"):
            spool.get(name)


def test_only_old_payloads_are_swept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    old, new = spool.put(b"old"), spool.put(b"new")
    os.utime(tmp_path / old, (time.time() - 100, time.time() - 100))
    (tmp_path / "jobs").mkdir()
    assert spool.sweep(50) == 1
    assert spool.get(new) == b"new" and not (tmp_path / old).exists() and (tmp_path / "jobs").is_dir()
    assert spool.folder == tmp_path


def test_errors_say_what_to_do_and_hide_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpoolError) as caught:
        Spool("nothing://user:secret@host/path")
    assert "SCPALM_SPOOL_URL=nothing://host/path" in caught.value.detail and "secret" not in caught.value.detail
    spool = Spool(str(tmp_path))

    def fail(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageFullError, match="is full"):
        spool.put(b"x")


def test_a_payload_for_which_there_is_no_room_leaves_nothing(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 20)
    spool = Spool(str(disk))
    with pytest.raises(StorageFullError, match="is full"):
        spool.put(bytes(2 << 20))
    assert list(disk.iterdir()) == []
    assert spool.get(spool.put(b"small")) == b"small"
