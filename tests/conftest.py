"""Cells that tests of several packages use."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

REAL_CELLS = 100


@pytest.fixture(scope="session")
def real_cells() -> AnnData:
    """Raw counts of the first 100 cells of celltypist's sample, x 32,786 genes."""
    # Find the file without importing celltypist, which takes seconds.
    spec = importlib.util.find_spec("celltypist")
    if spec is None or spec.origin is None:
        pytest.skip("celltypist, whose wheel holds the real cells, is not installed")
    path = Path(spec.origin).parent / "data" / "samples" / "sample_cell_by_gene.csv"
    with path.open() as file:
        genes = file.readline().rstrip("\n").split(",")[1:]
        names, rows = [], []
        for line in itertools.islice(file, REAL_CELLS):
            name, _, values = line.partition(",")
            names.append(name)
            rows.append(sparse.csr_matrix(np.rint(np.fromstring(values, sep=",")).astype(np.float32)))
    cells = AnnData(sparse.vstack(rows, format="csr"))
    cells.obs_names, cells.var_names = names, genes
    return cells
