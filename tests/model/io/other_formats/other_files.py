"""Small files of other formats with the same cells: two cells, three genes."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

GENES, IDS = ["CD3D", "LYZ", "NKG7"], ["ENSG00000167286", "ENSG00000090382", "ENSG00000105374"]
CELLS = ["AAAC-1", "AAAG-1"]
COUNTS = sparse.csr_matrix(np.array([[3, 0, 1], [0, 7, 2]], np.float32))


def texts(values: list[str]) -> np.ndarray:
    return np.array([value.encode() for value in values])


def adata() -> anndata.AnnData:
    made = anndata.AnnData(COUNTS.copy(), obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=GENES))
    made.var["gene_ids"] = IDS
    return made


def write_10x(path: Path, genomes: tuple[str, ...] = (), counts: sparse.csr_matrix = COUNTS) -> Path:
    """Cell Ranger 3's file, or Cell Ranger 2's with a group for each genome."""
    with h5py.File(path, "w") as file:
        for name in genomes or ("matrix",):
            group = file.create_group(name)
            for part in ("data", "indices", "indptr"):
                group.create_dataset(part, data=getattr(counts, part).astype("i4"), compression="gzip")
            group["shape"] = np.array(counts.shape[::-1])
            group["barcodes"] = texts(CELLS if counts.shape[0] == 2 else [f"B{i}-1" for i in range(counts.shape[0])])
            if genomes:
                group["genes"], group["gene_names"] = texts(IDS), texts(GENES)
            else:
                group["features/id"], group["features/name"] = texts(IDS), texts(GENES)
                group["features/feature_type"] = texts(["Gene Expression", "Gene Expression", "Antibody Capture"])
    return path


def write_mudata(path: Path, modality: str = "rna") -> Path:
    adata().write_h5ad(path.with_suffix(".part"))
    with h5py.File(path, "w") as file, h5py.File(path.with_suffix(".part")) as part:
        file.create_group("obs")
        file.create_group("var")
        group = file.create_group(f"mod/{modality}")
        for name in part:
            part.copy(name, group)
    return path


def write_10x_folder(folder: Path) -> Path:
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", COUNTS.T.tocoo().astype(int))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in CELLS))
    rows = "".join(f"{i}\t{name}\tGene Expression\n" for i, name in zip(IDS, GENES, strict=True))
    with gzip.open(folder / "features.tsv.gz", "wt") as file:
        file.write(rows)
    return folder
