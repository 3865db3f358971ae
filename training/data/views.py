"""Two views of the same cells that differ in technology, depth and measured genes, to train the view head on.

Letters: B cells of a batch, G genes, R components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from scpalm.model.genes.rows import GeneSet
from scpalm.model.genes.values.linear import SCALE
from scpalm.model.read_out.basis import Basis, Correction
from scpalm.training.cell_types.table import cell_type_table
from scpalm.training.corpus.matrix import corpus_matrix
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.views_config import ViewsConfig

Floats = NDArray[np.float32]
# Data sets with fewer training cells are not drawn: nearly all pairs would be negatives of one type.
_MIN_CELLS = 16
_CELLS_OF_PROFILE = 5
# A panel with more than this share of a file's genes would hardly differ from the file.
_LARGEST_PANEL = 0.8


@dataclass(frozen=True)
class ViewBatch:
    """Two views of B cells.

    Attributes:
        f, log_measured: ``[2, B, R]`` and ``[2, B, 1]``, the inputs of the head.
        clean: ``[B, R]`` f of the unchanged cells.
        positive: ``[B, B]`` bool, cells of one type, and each cell with itself.
        ignored: ``[B, B]`` bool, pairs that may be of one type: neither positive nor negative.
    """

    f: Tensor
    log_measured: Tensor
    clean: Tensor
    positive: Tensor
    ignored: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> ViewBatch:
        """The same batch with every tensor changed, such as moved to a device."""
        tensors = (self.f, self.log_measured, self.clean, self.positive, self.ignored)
        return ViewBatch(*(change(tensor) for tensor in tensors))


class ViewSource:
    """Makes the views of step t from (seed, t) only.

    Most batches hold cells of one data set, so that technology is no help in telling them apart: 96 cells of a real
    set, drawn with weight sqrt(cells), or 5 simulated cells of each of 20 profiles of one file. In the others
    (``mixed_share``), cells of one Cell Ontology type come from different data sets.
    """

    def __init__(self, corpus: Corpus, basis: Basis, config: ViewsConfig) -> None:
        self._corpus, self._basis, self._config = corpus, basis, config
        self._table = basis.table()
        self._corrections: dict[int, Correction] = {}
        obs = corpus.obs
        self._file = obs["file"].to_numpy()
        self._label = obs["cell_type"].astype(object).fillna("").astype(str).to_numpy()
        self._total = obs["total"].to_numpy(np.float64)
        self._simulated = obs["simulated"].to_numpy(bool)
        self._rows_of = _grouped(self._file, corpus.train_rows)
        simulated = [f for f, rows in self._rows_of.items() if self._simulated[rows[0]]]
        self._profiles = {f: _grouped(self._label, self._rows_of[f]) for f in simulated}
        real = (f for f in self._rows_of if f not in self._profiles)
        self._real = [f for f in real if len(self._rows_of[f]) >= _MIN_CELLS]
        if not self._real and not self._profiles:
            raise ValueError(f"No data set of {corpus.path} has {_MIN_CELLS} cells to train a view head on.")
        self._spread = _spread(corpus)
        self._name, self._broad = _cell_types(self._label, obs["dataset"].astype(str).to_numpy())
        labelled = corpus.train_rows[self._name[corpus.train_rows] != ""]
        self._types = {name: _grouped(self._file, rows) for name, rows in _grouped(self._name, labelled).items()}

    def __call__(self, step: int) -> ViewBatch:
        rng = np.random.default_rng([self._config.seed, step, 5])
        if self._types and rng.random() < self._config.mixed_share:
            return self._mixed(rng)
        rows, file = self._one_set(rng)
        views = [self._view(rows, file, rng, panels=True) for _ in range(2)]
        label = self._label[rows]
        labelled = (label != "") & self._config.labels
        same = (label[:, None] == label) & labelled[:, None] & labelled
        return self._batch(views, self._clean(rows, file), same, np.zeros_like(same))

    def clean(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """f ``[B, R]`` and log_measured ``[B, 1]`` of unchanged cells."""
        f = np.empty((len(rows), self._basis.width), np.float32)
        log_measured = np.empty((len(rows), 1), np.float32)
        for file, at in _grouped(self._file[rows], np.arange(len(rows))).items():
            f[at] = self._clean(rows[at], file)
            log_measured[at] = self._correction(file).log_measured
        return torch.from_numpy(f), torch.from_numpy(log_measured)

    def _one_set(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
        if self._profiles and (not self._real or rng.random() < self._config.simulated_share):
            files = list(self._profiles)
            file = _draw(rng, files, [len(self._profiles[f]) for f in files])
            names = list(self._profiles[file])
            chosen = rng.permutation(len(names))[: max(self._config.batch_size // _CELLS_OF_PROFILE, 1)]
            rows = [_some(rng, self._profiles[file][names[i]], _CELLS_OF_PROFILE) for i in chosen]
            return np.concatenate(rows), file
        file = _draw(rng, self._real, [len(self._rows_of[f]) ** 0.5 for f in self._real])
        return _some(rng, self._rows_of[file], self._config.batch_size), file

    def _mixed(self, rng: np.random.Generator) -> ViewBatch:
        names = list(self._types)
        weight = np.sqrt([len(self._types[name]) for name in names])
        count = min(max(self._config.batch_size // _CELLS_OF_PROFILE, 1), len(names))
        chosen = rng.choice(len(names), count, replace=False, p=weight / weight.sum())
        drawn = []
        for name in (names[i] for i in chosen):
            files = list(self._types[name].values())
            for _ in range(_CELLS_OF_PROFILE):
                rows = files[rng.integers(len(files))]
                drawn.append(rows[rng.integers(len(rows))])
        rows = np.unique(drawn)
        width = self._basis.width
        f, clean = np.empty((2, len(rows), width), np.float32), np.empty((len(rows), width), np.float32)
        log_measured = np.empty((2, len(rows), 1), np.float32)
        for file, at in _grouped(self._file[rows], np.arange(len(rows))).items():
            for number in range(2):
                f[number, at], log_measured[number, at] = self._view(rows[at], file, rng, panels=False)
            clean[at] = self._clean(rows[at], file)
        name, broad = self._name[rows], self._broad[rows]
        same = name[:, None] == name
        # "T cell" in one source may be the "CD4-positive T cell" of another.
        return self._batch(list(zip(f, log_measured, strict=True)), clean, same, (broad[:, None] == broad) & ~same)

    def _batch(
        self,
        views: list[tuple[Floats, Floats]],
        clean: Floats,
        same: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
    ) -> ViewBatch:
        same = same | np.eye(len(same), dtype=bool)
        arrays = np.stack([f for f, _ in views]), np.stack([m for _, m in views]), clean, same, ignored & ~same
        return ViewBatch(*(torch.from_numpy(array) for array in arrays))

    def _correction(self, file: int) -> Correction:
        if file not in self._corrections:
            self._corrections[file] = self._basis.correction(GeneSet(self._corpus.measured[file]))
        return self._corrections[file]

    def _clean(self, rows: NDArray[np.int64], file: int) -> Floats:
        return self._project(corpus_matrix(self._corpus, rows), self._correction(file))

    def _project(self, x: sparse.csr_matrix, correction: Correction) -> Floats:
        y = sparse.csr_matrix((self._basis.transformed(x.data), x.indices, x.indptr), shape=x.shape)
        z = (np.asarray(y @ self._table) - correction.center) @ correction.solve
        return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-6), dtype=np.float32)

    def _view(
        self, rows: NDArray[np.int64], file: int, rng: np.random.Generator, *, panels: bool
    ) -> tuple[Floats, Floats]:
        """``[B, R]`` and ``[B, 1]``: cells of one file as another technology, depth and panel would show them."""
        config = self._config
        x = corpus_matrix(self._corpus, rows)
        owner = np.repeat(np.arange(len(rows)), np.diff(x.indptr))
        counts = np.expm1(x.data.astype(np.float64)) * self._total[rows][owner] / SCALE
        unknown = np.maximum(self._total[rows] - np.bincount(owner, counts, len(rows)), 0)
        keep = rng.uniform(config.thin_low, 1.0, len(rows))
        counts = rng.binomial(np.rint(counts).astype(np.int64), keep[owner]).astype(np.float64)
        if rng.random() < config.technology_share:
            sigma = rng.uniform(0, config.technology_sigma)
            counts *= np.exp(rng.normal(0, sigma, x.shape[1]))[x.indices]
        total = np.bincount(owner, counts, len(rows)) + unknown * keep
        correction = self._correction(file)
        panel = self._panel(file, rng) if panels and rng.random() < config.panel_share else None
        if panel is not None:
            correction = self._basis.correction(GeneSet(panel))
            counts *= panel[x.indices]
            if rng.random() < 0.5:  # a panel's own total
                total = np.bincount(owner, counts, len(rows))
        values = np.log1p(SCALE * counts / np.maximum(total, 1)[owner]).astype(np.float32)
        view = sparse.csr_matrix((values, x.indices, x.indptr), shape=x.shape)
        return self._project(view, correction), np.full((len(rows), 1), correction.log_measured, np.float32)

    def _panel(self, file: int, rng: np.random.Generator) -> NDArray[np.bool_] | None:
        """``[G]`` bool: 500 to 6,000 of the file's genes, variable ones more often; None if the file has too few."""
        config = self._config
        genes = np.flatnonzero(self._corpus.measured[file])
        size = int(np.exp(rng.uniform(np.log(config.panel_low), np.log(config.panel_high))))
        if size > _LARGEST_PANEL * len(genes):
            return None
        weight = self._spread[genes] ** rng.uniform(0, 2)
        chosen = rng.choice(genes, size, replace=False, p=weight / weight.sum())
        return np.isin(np.arange(len(self._spread)), chosen)


def _grouped(keys: NDArray[Any], rows: NDArray[np.int64]) -> dict[Any, NDArray[np.int64]]:
    """The rows of each value of ``keys``, in ascending order."""
    values, position = np.unique(keys[rows], return_inverse=True)
    return {value: rows[position == i] for i, value in enumerate(values.tolist())}


def _draw(rng: np.random.Generator, items: list[int], weights: list[float]) -> int:
    share = np.asarray(weights, dtype=np.float64)
    return items[int(rng.choice(len(items), p=share / share.sum()))]


def _some(rng: np.random.Generator, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return rng.choice(rows, min(most, len(rows)), replace=False)


def _spread(corpus: Corpus, cells: int = 8192) -> NDArray[np.float64]:
    """``[G]`` sd of each gene's value over some training cells, at least 0.001."""
    rows = corpus.train_rows
    x = corpus_matrix(corpus, np.random.default_rng(0).choice(rows, min(cells, len(rows)), replace=False))
    mean = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    return np.sqrt(np.maximum(square - mean**2, 1e-6))


def _cell_types(
    labels: NDArray[np.object_], datasets: NDArray[np.object_]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """``[cells]`` Cell Ontology id or name, and broad type; '' for labels that name no type."""
    table = cell_type_table()
    known: dict[tuple[str, str], tuple[str, str]] = {}
    for key in _pairs(labels, datasets):
        found = table.find(*key) if key[0] else None
        known[key] = (found.cell_ontology_id or found.name, found.broad) if found and found.broad else ("", "")
    pairs = [known[key] for key in zip(labels.tolist(), datasets.tolist(), strict=True)]
    return np.array([name for name, _ in pairs], object), np.array([broad for _, broad in pairs], object)


def _pairs(labels: NDArray[np.object_], datasets: NDArray[np.object_]) -> Iterator[tuple[str, str]]:
    yield from dict.fromkeys(zip(labels.tolist(), datasets.tolist(), strict=True))
