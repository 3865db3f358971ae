"""AnnData stores in zarr, read as a stream of cells like ``H5adFile`` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from model.errors import InputError
from model.h5ad import ENSEMBL_COLUMNS, SYMBOL_COLUMNS, _mostly_ensembl
from model.matrix import CellMatrix


class ZarrFile:
    """Cells x genes of a zarr store; a context manager. Only a chunk of the matrix is in memory at a time.

    Args and errors as for ``H5adFile``: ``layer`` None or ``X``, a layer's name, or ``raw``; ``totals_column`` of obs.
    """

    def __init__(self, path: Path, *, layer: str | None = None, totals_column: str | None = None) -> None:
        import zarr
        from anndata.io import read_elem, sparse_dataset

        _refuse_pickles(path)
        try:
            root = zarr.open_group(str(path), mode="r")
            self._obs: pd.DataFrame = read_elem(root["obs"])
            chosen = {None: "X", "X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")
            if chosen not in root:
                raise InputError("no-such-layer", f"The store has no '{chosen}'.", mend="Name another.", field="layer")
            var: pd.DataFrame = read_elem(root["raw/var" if layer == "raw" else "var"])
            node: Any = root[chosen]
            self._matrix: Any = node if hasattr(node, "shape") else sparse_dataset(node)
        except InputError:
            raise
        except Exception as error:  # zarr and anndata raise many kinds for a damaged store
            raise InputError(
                "broken-zarr",
                f"The store cannot be read ({type(error).__name__}: {error}).",
                mend="Write it again with anndata's write_zarr.",
                field="X",
            ) from error
        if self._matrix.shape != (len(self._obs), len(var)):
            raise InputError(
                "shape-mismatch",
                f"'{chosen}' is {self._matrix.shape[0]} x {self._matrix.shape[1]}, obs and var are "
                f"{len(self._obs)} x {len(var)}.",
                mend="Write the store again.",
                field=chosen,
            )
        self.genes, self.ensembl_ids = _names(var)
        self._totals_column = totals_column

    def __enter__(self) -> ZarrFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        """A column of ``obs`` ``[B]``, None where there is none; strings are "" where missing."""
        if name not in self._obs:
            return None
        column = self._obs[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object or str(column.dtype) == "str":
            column = column.astype(object).where(column.notna(), "")
        return np.asarray(column)

    def chunks(self, size: int) -> Iterator[CellMatrix]:
        """The cells in order, ``size`` at a time."""
        names = [str(name) for name in self._obs.index]
        totals = None if self._totals_column is None else np.asarray(self._obs[self._totals_column], dtype=np.float64)
        for start in range(0, len(names), size):
            part = sparse.csr_matrix(self._matrix[start : start + size])
            part.sum_duplicates()
            rows = slice(start, start + part.shape[0])
            yield CellMatrix(
                part.indptr.astype(np.int64),
                part.indices.astype(np.int32),
                part.data.astype(np.float32),
                self.genes,
                names[rows],
                self.ensembl_ids,
                None if totals is None else totals[rows],
            )


def _names(var: pd.DataFrame) -> tuple[list[str], list[str] | None]:
    """Gene names and Ensembl ids of the columns, by the rules of ``H5adFile``."""
    index = [str(name) for name in var.index]
    texts = {
        n: [str(v) if pd.notna(v) else "" for v in var[n]] for n in (*SYMBOL_COLUMNS, *ENSEMBL_COLUMNS) if n in var
    }
    by_id = _mostly_ensembl(index)
    symbols = next((texts[n] for n in SYMBOL_COLUMNS if n in texts and any(texts[n])), None)
    if not by_id and not all(name.isdigit() for name in index):
        symbols = None
    genes = [symbol or name for symbol, name in zip(symbols, index, strict=True)] if symbols else index
    if by_id:
        return genes, index
    return genes, next((texts[n] for n in ENSEMBL_COLUMNS if n in texts and _mostly_ensembl(texts[n])), None)


def _refuse_pickles(path: Path) -> None:
    """Old stores may hold objects that run code when they are read."""
    for name in (".zarray", "zarr.json", ".zmetadata"):
        for file in path.rglob(name):
            if '"pickle"' in file.read_text(errors="replace"):
                raise InputError(
                    "pickled-zarr",
                    f"'{file.relative_to(path)}' is stored as pickled objects.",
                    mend="Write the store again with a current anndata.",
                    field=str(file.relative_to(path).parent),
                )
