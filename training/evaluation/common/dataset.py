"""Read a labelled file of cells for an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.metrics.labels import Labels, encode_labels

ENSEMBL_COLUMNS = ("ensembl_id", "gene_ids", "gene_id", "ensembl")
DUPLICATE_COLUMN = "is_duplicate"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Cells and their labels.

    Attributes:
        name: the file's name without suffix.
        matrix: B cells, validated.
        labels: ``[B]`` codes; unlabelled cells are kept. batches: ``[B]`` names; None unless requested.
        duplicates_dropped: number of cells left out because ``obs.is_duplicate`` is true.
    """

    name: str
    matrix: CellMatrix
    labels: Labels
    duplicates_dropped: int = 0
    batches: tuple[str, ...] | None = None


def load_dataset(
    path: Path | str,
    label: str = "cell_type",
    *,
    layer: str | None = None,
    drop_duplicates: bool = True,
    keep: Mapping[str, str] | None = None,
    batch_key: str | None = None,
) -> Dataset:
    """Read an h5ad file with labels in ``obs``.

    Args:
        label: column of ``obs``. layer: a layer to read in place of X.
        drop_duplicates: leave out cells whose ``obs.is_duplicate`` is true, if the column exists.
        batch_key: column of ``obs`` with the batch of each cell.
        keep: only cells with these values in ``obs``, e.g. ``{"demuxlet_cls": "SNG"}`` to leave out doublets.

    Raises:
        UnreadableError: the file is missing or not h5ad.
        InputError: no such label or layer, labels that cannot be scored, or values that are neither counts nor logs.
    """
    path = Path(path)
    cells = _read(path)
    labels = _column(cells, label, path, "Name a column that holds labels with --label.")
    dropped = 0
    if drop_duplicates and DUPLICATE_COLUMN in cells.obs:
        duplicate = _truth(cells.obs[DUPLICATE_COLUMN])
        dropped = int(duplicate.sum())
        cells, labels = cells[~duplicate], labels[~duplicate]
    for name, value in (keep or {}).items():
        wanted = (_column(cells, name, path, "Keep cells by a column of obs.").astype(str) == value).to_numpy(
            dtype=bool
        )
        cells, labels = cells[wanted], labels[wanted]
    matrix = _to_matrix(cells, path, layer)
    matrix.validate()
    batches = None
    if batch_key is not None:
        column = _column(cells, batch_key, path, "Name a column that holds batches with --batch-key.")
        batches = tuple(column.astype(object).where(column.notna(), "").astype(str))
    return Dataset(path.stem, matrix, encode_labels(labels, field=label), dropped, batches)


def _column(cells: anndata.AnnData, name: str, path: Path, hint: str) -> pd.Series:
    if name in cells.obs:
        return cells.obs[name]
    raise InputError(
        "no-label-column",
        f"{path.name} has no column '{name}' in obs; it has: {', '.join(map(str, cells.obs.columns)) or 'none'}.",
        hint=hint,
        field=name,
    )


def _read(path: Path) -> anndata.AnnData:
    if not path.is_file():
        raise UnreadableError("no-file", f"There is no file {path}.", hint="Check the path.")
    try:
        return anndata.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise many types for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableError(
            "not-h5ad", f"{path} could not be read as h5ad: {reason}.", hint="Write it again with AnnData.write_h5ad."
        ) from error


def _truth(column: pd.Series) -> NDArray[np.bool_]:
    # A flag that was stored as text is 'True' or 'False'.
    return np.asarray(column.astype(str).str.lower().isin(["true", "1", "1.0"]), dtype=bool)


def _to_matrix(cells: anndata.AnnData, path: Path, layer: str | None) -> CellMatrix:
    if layer is not None and layer not in cells.layers:
        raise InputError(
            "no-layer",
            f"{path.name} has no layer '{layer}'; it has: {', '.join(map(str, cells.layers)) or 'none'}.",
            hint="Name a layer of the file, or none to use X.",
            field=layer,
        )
    values = cells.X if layer is None else cells.layers[layer]
    if values is None:
        raise InputError("no-x", f"{path.name} has no X.", hint="Put the counts in X, or name a layer.", field="X")
    table = sparse.csr_matrix(values).astype(np.float32)
    table.sum_duplicates()
    ensembl = next((name for name in ENSEMBL_COLUMNS if name in cells.var), None)
    return CellMatrix(
        indptr=table.indptr.astype(np.int64),
        indices=table.indices.astype(np.int32),
        data=table.data,
        genes=[str(name) for name in cells.var_names],
        cells=[str(name) for name in cells.obs_names],
        ensembl_ids=None if ensembl is None else cells.var[ensembl].astype(object).fillna("").astype(str).tolist(),
    )
