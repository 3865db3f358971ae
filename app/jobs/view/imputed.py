"""Imputed expression of some genes for all cells of a job, gene by gene, in the files of the job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from scpalm.app.jobs.files import JobFiles
from scpalm.app.storage.scratch import ensure_folder
from scpalm.app.storage.values import StoredValues, row_blocks
from scpalm.model.tasks.task import Values

_PREFIX = "imputed-"


@dataclass(frozen=True, eq=False)
class ImputedPanel:
    """Imputed log1p CP10K of some genes. All methods block.

    Attributes:
        files: files of the job.
        name: name of the file with the values, ``[genes, B]`` float32.
        genes: positions of the genes in the vocabulary.
        num_cells: B.
        scratch: path for a folder of this request.
    """

    files: JobFiles
    name: str
    genes: NDArray[np.int64]
    num_cells: int
    scratch: Path

    @classmethod
    def find(cls, files: JobFiles, position: int, scratch: Path) -> ImputedPanel | None:
        """A stored panel with this gene, or None."""
        for described in files.names(_PREFIX):
            if described.endswith(".json"):
                content = json.loads(files.read(described))
                if position in content["genes"]:
                    genes = np.array(content["genes"], np.int64)
                    return cls(files, content["name"], genes, content["num_cells"], scratch)
        return None

    @classmethod
    def store(
        cls, files: JobFiles, genes: NDArray[np.int64], values: Values | StoredValues, scratch: Path
    ) -> ImputedPanel:
        """Store values ``[B, genes]``. Their description is written last, so that no reader finds half of a panel."""
        num_cells = values.shape[0]
        by_gene = np.empty((len(genes), num_cells), np.float32)
        start = 0
        for block in row_blocks(values):
            by_gene[:, start : start + len(block)] = block.T
            start += len(block)
        name = f"{_PREFIX}{uuid4().hex}"
        files.write(name, by_gene.tobytes())
        content = {"genes": genes.tolist(), "num_cells": num_cells, "name": name}
        files.write(f"{name}.json", json.dumps(content).encode())
        return cls(files, name, genes, num_cells, scratch)

    def gene(self, position: int) -> NDArray[np.float32]:
        """Values ``[B]`` of one gene of the panel."""
        row = int(np.searchsorted(self.genes, position))
        with self.files.local(self.name, ensure_folder(self.scratch)) as path:
            return np.fromfile(path, np.float32, self.num_cells, offset=4 * row * self.num_cells)
