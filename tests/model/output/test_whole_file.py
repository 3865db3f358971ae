from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.model.output.whole_file import replaced_when_whole


def test_the_file_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_when_whole(target) as partial:
        partial.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    with pytest.raises(ZeroDivisionError), replaced_when_whole(target) as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_other_file_is_touched(tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_bytes(b"precious")
    with replaced_when_whole(tmp_path / "out") as partial:
        partial.write_bytes(b"whole")
    assert (tmp_path / "out.partial").read_bytes() == b"precious"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replaced_when_whole(tmp_path / "no" / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "no")
