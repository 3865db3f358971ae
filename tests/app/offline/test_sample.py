from __future__ import annotations

import importlib.util
from pathlib import Path

import anndata
import numpy as np
import pytest

from scpalm.app.offline.sample import write_sample
from scpalm.model.errors import InputError


@pytest.mark.skipif(
    importlib.util.find_spec("celltypist") is None, reason="celltypist, whose cells these are, is absent"
)
def test_the_sample_has_real_counts(tmp_path: Path) -> None:
    assert write_sample(tmp_path / "cells.h5ad") == (559, 32_786)
    cells = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert cells.shape == (559, 32_786)
    assert cells.X.data.min() >= 1
    np.testing.assert_array_equal(cells.X.data, np.rint(cells.X.data))
    assert "CD3D" in cells.var_names
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_without_celltypist_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install celltypist"):
        write_sample(tmp_path / "cells.h5ad")
    assert not list(tmp_path.iterdir())
