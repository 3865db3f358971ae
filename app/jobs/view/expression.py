"""Measured expression of the cells of a job, gene by gene, in the files of the job.

Uploads store their cells one after the other, so reading one gene from them means reading everything. Here the
entries of each block of cells are sorted by gene, and a gene is two small reads a block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.app.jobs.files import JobFiles
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows

_INDEX = "expression.json"
_MOMENTS = "expression-moments"
_BLOCK_CELLS = 8 * 512
_SCALE = 1e4


@dataclass(frozen=True, eq=False)
class _Block:
    """The cells of one block: entries sorted by gene.

    Attributes:
        ends: ``[G + 1]`` int64, where the entries of each gene begin.
        cell: position of the cell of each entry, from the first of the block.
        value: log1p CP10K of each entry.
        totals: ``[cells]`` counts of each cell.
    """

    ends: NDArray[np.int64]
    cell: NDArray[np.int32]
    value: NDArray[np.float32]
    totals: NDArray[np.float64]

    @classmethod
    def of(cls, parts: list[Prepared], num_genes: int) -> _Block:
        rows = Rows.concat([part.rows for part in parts])
        by_cell = sparse.csr_matrix((rows.value, rows.gene_index, rows.indptr), shape=(len(rows), num_genes))
        by_gene = by_cell.tocsc()
        totals = np.concatenate([part.totals for part in parts])
        return cls(by_gene.indptr.astype(np.int64), by_gene.indices.astype(np.int32), by_gene.data, totals)

    def as_bytes(self) -> bytes:
        return b"".join(array.tobytes() for array in (self.ends, self.totals, self.cell, self.value))


class ExpressionWriter:
    """Takes the cells of a job in order. Call `finish` at the end. All methods block."""

    def __init__(self, files: JobFiles, num_genes: int) -> None:
        self._files, self._num_genes = files, num_genes
        self._parts: list[Prepared] = []
        self._sizes: list[tuple[int, int]] = []
        self._moments = np.zeros((2, num_genes))
        self._names: list[str] = []

    def add(self, part: Prepared) -> None:
        """Add the next cells."""
        self._parts.append(part)
        self._names += part.cells
        rows = part.rows
        for power, row in enumerate(self._moments, start=1):
            row += np.bincount(rows.gene_index, rows.value.astype(np.float64) ** power, self._num_genes)
        if sum(len(part.rows) for part in self._parts) >= _BLOCK_CELLS:
            self._write()

    def finish(self, kind: str) -> None:
        """Write the rest. ``kind``: what the values of the upload are, such as ``counts``."""
        if self._parts:
            self._write()
        self._files.write(_MOMENTS, self._moments.tobytes())
        index = {"num_genes": self._num_genes, "blocks": self._sizes, "kind": kind, "cells": self._names}
        self._files.write(_INDEX, json.dumps(index).encode())

    def _write(self) -> None:
        block = _Block.of(self._parts, self._num_genes)
        self._files.write(f"expression-{len(self._sizes):06d}", block.as_bytes())
        self._sizes.append((len(block.totals), len(block.cell)))
        self._parts = []


class Expression:
    """Expression that `ExpressionWriter` wrote. All methods block and raise the errors of `JobFiles`.

    Attributes:
        cells: names of the cells.
        kind: what the values of the upload are, such as ``counts``.
        num_genes: G.
    """

    def __init__(self, files: JobFiles, scratch: Path) -> None:
        self._files, self._scratch = files, scratch
        index = json.loads(files.read(_INDEX))
        self.cells: list[str] = index["cells"]
        self.kind: str = index["kind"]
        self.num_genes: int = index["num_genes"]
        self._sizes: list[tuple[int, int]] = [(int(cells), int(entries)) for cells, entries in index["blocks"]]

    @staticmethod
    def exists(files: JobFiles) -> bool:
        """Whether the files of a job hold expression."""
        return files.has(_INDEX)

    def gene(self, position: int) -> NDArray[np.float32]:
        """log1p CP10K ``[B]`` of the gene at a position of the vocabulary."""
        values = np.zeros(len(self.cells), np.float32)
        start = 0
        for number, (num_cells, num_entries) in enumerate(self._sizes):
            with self._path(number) as path:
                first, last = map(int, np.fromfile(path, np.int64, 2, offset=8 * position))
                at = 8 * (self.num_genes + 1 + num_cells)
                cell = np.fromfile(path, np.int32, last - first, offset=at + 4 * first)
                entries = np.fromfile(path, np.float32, last - first, offset=at + 4 * (num_entries + first))
            values[start + cell] = entries
            start += num_cells
        return values

    def variable_genes(self, num: int) -> NDArray[np.int64]:
        """Positions of the genes whose log1p CP10K varies most, at most ``num``, ascending."""
        total, squares = np.frombuffer(self._files.read(_MOMENTS)).reshape(2, -1)
        variance = squares - total**2 / max(1, len(self.cells))
        best = np.argsort(-variance, kind="stable")[:num]
        return np.sort(best[variance[best] > 0])

    def means(self, selected: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean log1p CP10K ``[G]`` of the selected cells and of the others; 0 if there are none."""
        sums = np.zeros((2, self.num_genes))
        start = 0
        for block in self._blocks():
            inside = selected[start : start + len(block.totals)].astype(np.float64)
            start += len(block.totals)
            gene = np.repeat(np.arange(self.num_genes), np.diff(block.ends))
            sums[0] += np.bincount(gene, block.value * inside[block.cell], self.num_genes)
            sums[1] += np.bincount(gene, block.value, self.num_genes)
        num_selected = int(selected.sum())
        rest = (sums[1] - sums[0]) / max(1, len(selected) - num_selected)
        return sums[0] / max(1, num_selected), rest

    def sums(self, groups: NDArray[np.int32], num_groups: int) -> NDArray[np.float64]:
        """Counts summed by group ``[groups, G]``; group -1 is left out. Without counts, sums of CP10K."""
        found = np.zeros((num_groups, self.num_genes))
        start = 0
        for block in self._blocks():
            group = groups[start : start + len(block.totals)]
            start += len(block.totals)
            gene = np.repeat(np.arange(self.num_genes), np.diff(block.ends))
            counts = np.expm1(block.value.astype(np.float64)) * block.totals[block.cell] / _SCALE
            known = group[block.cell] >= 0
            flat = group[block.cell[known]].astype(np.int64) * self.num_genes + gene[known]
            found += np.bincount(flat, counts[known], found.size).reshape(found.shape)
        return np.rint(found) if self.kind == "counts" else found

    def _blocks(self) -> Iterator[_Block]:
        for number, (num_cells, num_entries) in enumerate(self._sizes):
            with self._path(number) as path, path.open("rb") as file:
                ends = np.fromfile(file, np.int64, self.num_genes + 1)
                totals = np.fromfile(file, np.float64, num_cells)
                cell = np.fromfile(file, np.int32, num_entries)
                yield _Block(ends, cell, np.fromfile(file, np.float32, num_entries), totals)

    @contextmanager
    def _path(self, number: int) -> Iterator[Path]:
        with self._files.local(f"expression-{number:06d}", self._scratch) as path:
            yield path
