"""10x's matrix folder: matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv), each may be gzipped."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.io.other_formats.ten_x import write_frames


def write_folder(matrix: Path, target: Path) -> None:
    """Write the cells of the folder of ``matrix`` as h5ad. Raises InputError."""
    from scipy import sparse
    from scipy.io import mmread

    barcodes = _table(matrix.parent, ("barcodes.tsv",))
    features = _table(matrix.parent, ("features.tsv", "genes.tsv"))
    try:
        counts = sparse.csr_matrix(mmread(matrix).T)
    except (ValueError, OSError, TypeError, EOFError) as error:
        raise InputError(
            "broken-mtx", f"{matrix} cannot be read ({str(error)[:150]}).", hint="Copy the folder again.", field="X"
        ) from error
    if counts.shape != (len(barcodes), len(features)):
        raise InputError(
            "shape-mismatch",
            f"{matrix} has {counts.shape[1]} features and {counts.shape[0]} cells, but the tables next to it have "
            f"{len(features)} and {len(barcodes)} rows.",
            hint="Copy all three files of one run.",
            field="X",
        )
    width = max(map(len, features))
    with h5py.File(target, "w") as out:
        names = _column(features, min(1, width - 1))
        types = _column(features, 2) if width > 2 else None
        write_frames(out, _column(barcodes, 0), names, {"gene_ids": _column(features, 0), "feature_types": types})
        group = out.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = np.array(counts.shape, np.int64)
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(counts, part))


def _table(folder: Path, names: tuple[str, ...]) -> list[list[str]]:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                with _open(path) as file:
                    rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
                if rows:
                    return rows
    raise InputError(
        "missing-part",
        f"{folder} has no {' or '.join(names)} (or it is empty).",
        hint="Keep matrix.mtx, barcodes.tsv and features.tsv in one folder.",
    )


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _column(rows: list[list[str]], position: int) -> NDArray[np.object_]:
    return np.array([row[position] if position < len(row) else "" for row in rows], dtype=object)
