"""What the service would read from a file, and what to expect of it; the network does not run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scpalm.app.offline.files import readable
from scpalm.model.bundle import Bundle
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.io.cells import open_cells
from scpalm.model.stream import CellReader

# Below this many expressed genes of the model, a cell says little.
FEW_EXPRESSED = 200
# Bounds of the advice, from the evaluation of the model (README, training/LOG.md).
_FEW_CELLS, _FEW_GENES, _LOW_SHARE = 200, 1000, 0.8
_WHOLE = 8000  # genes of a file that is not a panel


@dataclass(frozen=True)
class FileReport:
    """What would be read.

    Attributes:
        num_cells: cells of the file.
        coverage: genes. input: kind of the values, and where they are from.
        expressed: median number of expressed genes of the model, of the first cells.
        few_expressed: share of these cells with under FEW_EXPRESSED of them.
        advice: what to expect, in sentences.
    """

    num_cells: int
    coverage: Coverage
    input: InputReport
    expressed: float
    few_expressed: float
    advice: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The report as JSON."""
        return {
            "cells": self.num_cells,
            "coverage": self.coverage.as_dict(),
            "input": self.input.as_dict(),
            "warnings": list(self.input.warnings),
            "median_expressed_genes": self.expressed,
            "share_of_poor_cells": self.few_expressed,
            "advice": list(self.advice),
        }


def check_file(source: Path, bundle: Bundle, *, layer: str | None, declared: Declaration) -> FileReport:
    """Read the genes and the first cells of a file. Raises InputError for a file that would be refused."""
    with readable(source) as path, CellReader(bundle, open_cells(path, layer=layer), declared) as reader:
        prepared = next(iter(reader))
        lengths = prepared.rows.lengths()
        expressed, few = float(np.median(lengths)), float((lengths < FEW_EXPRESSED).mean())
        found = FileReport(reader.num_cells, reader.coverage, prepared.input, expressed, few, ())
    return FileReport(found.num_cells, found.coverage, found.input, expressed, few, tuple(_advice(found)))


def _advice(found: FileReport) -> list[str]:
    out = []
    if found.num_cells < _FEW_CELLS:
        out.append(
            f"{found.num_cells} cells are too few to fit principal components or scVI; the embedding needs no fit."
        )
    if found.coverage.genes_of_model < _FEW_GENES:
        out.append(
            f"{found.coverage.genes_of_model} genes are a small panel: types that these genes do not tell apart stay "
            "together."
        )
    if found.few_expressed > 0.1 and found.coverage.genes_of_model > _WHOLE:
        out.append(
            f"{found.few_expressed:.0%} of the first cells express under {FEW_EXPRESSED} genes of the model. Filter "
            "empty droplets and debris first."
        )
    share = found.input.counts_matched
    if share is not None and share < _LOW_SHARE:
        out.append(f"Only {share:.0%} of the counts lie in genes of the model; check the gene names.")
    if not out:
        out.append("Nothing unusual was found.")
    return out
