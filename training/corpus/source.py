"""Read one file for a corpus: its matrix, its columns of obs, and the cells to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.io.cells import CellSource, open_cells
from scpalm.training.corpus.fingerprints import CHUNK, counts_of, known_genes
from scpalm.training.corpus.simulated.simulate import SimulationOptions

# Columns of obs that a corpus keeps, with the names to look for: ours, then those of CELLxGENE and Tabula Sapiens.
COLUMNS: dict[str, tuple[str, ...]] = {
    "dataset": ("dataset", "dataset_id"),
    "tissue": ("tissue", "tissue_in_publication", "organ_tissue"),
    "cell_type": ("cell_type", "cell_ontology_class"),
    "cell_type_id": ("cell_type_ontology_term_id", "cell_ontology_id"),
    "donor": ("donor", "donor_id"),
}


@dataclass(frozen=True)
class CorpusOptions:
    """How files become a corpus.

    Attributes:
        totals_column: obs column with each cell's counts over all genes, for files that keep only some genes.
        keep: obs column -> value; where a file has the column, other cells are dropped (e.g. doublets).
        layer: ``X``, ``raw`` (raw.X) or a layer's name; ``auto``: the matrix that holds the counts, as in the service.
        min_genes: cells with fewer expressed known genes are dropped.
        held_out: share of cells kept for the held-out loss, chosen by a hash of the cell's content.
        shard_cells: cells per shard. seed: of the held-out choice and of simulated cells.
        simulation: expression profiles to draw cells from, in addition to the files.
        census: what was asked of a census and how many cells it has, for ``corpus.json``.
    """

    totals_column: str = "total_UMIs"
    keep: dict[str, str] = field(default_factory=dict)
    layer: str = "auto"
    min_genes: int = 20
    held_out: float = 0.02
    shard_cells: int = 16384
    seed: int = 0
    simulation: SimulationOptions = field(default_factory=SimulationOptions)
    census: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """Cells of a file. rows: B cells. obs: ``[B]`` with the corpus' columns. counts: ``[entries]`` of the rows."""

    rows: Rows
    obs: pd.DataFrame
    counts: NDArray[np.int64]


class Source:
    """One file, read in chunks, filtered and prepared.

    Attributes:
        measured: ``[G]`` bool genes of the file. summary: for the report. Both are set when chunks are read.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, options: CorpusOptions) -> None:
        self.path, self.vocabulary, self.options = path, vocabulary, options
        self.measured = np.zeros(len(vocabulary), dtype=bool)
        self.summary: dict[str, Any] = {}

    def chunks(self, report: dict[str, Any]) -> Iterator[Prepared]:
        """Yield the cells that pass the filters and count the others in ``report["filtered"]``. Raises InputError."""
        layer = None if self.options.layer == "auto" else self.options.layer
        with open_cells(self.path, layer=layer) as file:
            totals = self.options.totals_column if file.obs_column(self.options.totals_column) is not None else None
        with open_cells(self.path, layer=layer, totals_column=totals) as file:
            columns = {name: file.obs_column(name) for name in ("is_duplicate", *self.options.keep)}
            kept = {name: _first(file, names) for name, names in COLUMNS.items()}
            preparer = Preparer(self.vocabulary, file.columns)
            self.measured = preparer.measured
            coverage = preparer.coverage
            self.summary = {"genes_in": coverage.genes_in, "genes_matched": coverage.genes_matched}
            start = 0
            for chunk in file.chunks(CHUNK):
                at = slice(start, start + chunk.num_cells)
                start += chunk.num_cells
                wanted = self._wanted(chunk, columns, at, preparer.target)
                report["filtered"] += int((~wanted).sum())
                if not wanted.any():
                    continue
                chunk = chunk.select(np.flatnonzero(wanted))
                prepared = preparer.prepare(chunk)
                seen = prepared.input
                self.summary |= {"matrix": seen.source, "input": seen.detected, "why": seen.why}
                obs = pd.DataFrame({"cell": list(chunk.cells), "total": prepared.totals})
                for name, default in (
                    ("dataset", self.path.stem),
                    ("tissue", "unknown"),
                    ("cell_type", ""),
                    ("cell_type_id", ""),
                    ("donor", ""),
                ):
                    column = kept[name]
                    obs[name] = default if column is None else [str(v) for v in np.asarray(column)[at][wanted]]
                yield Prepared(prepared.rows, obs, counts_of(prepared.rows, prepared.totals))

    def _wanted(
        self, chunk: CellMatrix, columns: dict[str, Any], at: slice, target: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        wanted = known_genes(chunk, target) >= max(self.options.min_genes, 1)
        if columns["is_duplicate"] is not None:
            wanted &= ~np.isin([str(v) for v in np.asarray(columns["is_duplicate"])[at]], ["True", "true", "1"])
        for name, value in self.options.keep.items():
            if columns[name] is not None:
                wanted &= np.array([str(v) == value for v in np.asarray(columns[name])[at]])
        return wanted


def _first(file: CellSource, names: tuple[str, ...]) -> NDArray[np.generic] | None:
    return next((column for name in names if (column := file.obs_column(name)) is not None), None)
