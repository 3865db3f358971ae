"""Files that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.pools import (
    write_genes,
    write_h5ad,
)


@pytest.fixture
def genes(tmp_path: Path) -> Path:
    return write_genes(tmp_path)


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    return write_h5ad(tmp_path)
