"""A reference for the tiny bundle of the tests: two broad types from random cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from scpalm.model.annotation.bundled import Entry, StoredReference
from scpalm.model.annotation.calibration import Calibration
from scpalm.model.annotation.discriminant import Discriminant
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.training.export.bundle_files import add_files
from tests.training.tiny import tiny_counts

NAMES = ("B cell", "T cell")
ENTRIES = (
    Entry("b", "naive B cell", "B cell", "CL:0000788", "blood", "one"),
    Entry("t", "helper T cell", "T cell", "CL:0000912", "blood", "one"),
    Entry("T", "T cell", "T cell", "", "colon", "two"),
)


def tiny_matrix(num_cells: int, seed: int) -> CellMatrix:
    """Cells with the genes of the tiny bundle."""
    counts = sparse.csr_matrix(tiny_counts(num_cells, seed=seed))
    return CellMatrix(
        counts.indptr.astype(np.int64),
        counts.indices,
        counts.data.astype(np.float32),
        [f"GENE{i}" for i in range(counts.shape[1])],
        [str(row) for row in range(num_cells)],
    )


def add_small_reference(path: Path) -> Bundle:
    """Write a reference into a bundle; the threshold is infinite, so that no cell is unknown."""
    bundle = Bundle.load(path)
    rows = prepare(tiny_matrix(60, seed=11), bundle.vocabulary).rows
    array = open_runtime(bundle, device="cpu").encode(rows).embedding
    groups = np.arange(60, dtype=np.int32) % 3
    labels = np.array([0, 1, 1], np.int32)[groups]
    discriminant = Discriminant.fit(array, labels, groups)
    stored = StoredReference(
        NAMES, array.astype(np.float16), discriminant, ENTRIES, Calibration(0.8, -0.1, 1e6), {"sets": {}}
    )
    add_files(path, stored.files(), {"reference": {"cells": 60}})
    return Bundle.load(path)
