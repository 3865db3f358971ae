"""Write a small sample file of real cells: the demo counts of celltypist (559 cells x 32,786 genes)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from scpalm.model.errors import InputError
from scpalm.model.output.whole_file import replaced_when_whole

_FILE = Path("data", "samples", "sample_cell_by_gene.csv")


def find_sample() -> Path:
    """Find the counts of the installed celltypist without importing it, which takes seconds. Raises InputError."""
    spec = importlib.util.find_spec("celltypist")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise InputError(
        "no-sample",
        "The sample cells are part of the package celltypist, which is not installed.",
        hint="Install it with `pip install celltypist`, or use your own h5ad file.",
    )


def write_sample(target: Path) -> tuple[int, int]:
    """Write the sample as h5ad and return the number of cells and genes. Raises InputError, OSError."""
    import anndata
    from scipy import sparse

    rows, names = [], []
    with find_sample().open("rb") as file:
        genes = file.readline().decode().rstrip("\r\n").split(",")[1:]
        for line in file:
            name, _, values = line.partition(b",")
            names.append(name.decode())
            # The file has counts such as 3.0000000000000001.
            counts = np.rint(np.fromstring(values.decode(), sep=",", dtype=np.float64))
            rows.append(sparse.csr_matrix(counts.astype(np.float32)))
    cells = anndata.AnnData(sparse.vstack(rows, format="csr"))
    cells.obs_names, cells.var_names = names, genes
    with replaced_when_whole(target) as partial:
        cells.write_h5ad(partial, compression="gzip")
    return cells.n_obs, cells.n_vars
