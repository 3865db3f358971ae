"""Large uploads at once stay within the memory of the service; `tests.chaos.memory` prints the large form."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.memory import GIB, flood, write_cells


def test_uploads_at_once_are_answered_or_refused(tmp_path: Path) -> None:
    write_cells(tmp_path / "cells.h5ad", 3000)
    found = flood(tmp_path, tmp_path / "cells.h5ad", 6, GIB)
    assert set(found.answers) <= {200, 429} and found.answers[200]
    assert found.alive and not found.killed
    assert found.peak < GIB
    assert found.left < 16 << 20, "the device may still hold its last batch"
