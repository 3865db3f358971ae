"""An adapter: components of a user's own cells next to f and the view head, and one linear map of all three.

Letters: B cells, G genes, R components of f, H width of the view head, r own components, D' width of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.genes.rows import Rows
from scpalm.model.read_out.basis import Basis
from scpalm.model.read_out.corrections import Corrections

ADAPTER_FILE = "adapter.safetensors"
Floats = NDArray[np.float32]
# Cells multiplied at once, to bound memory.
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Adapter:
    """Turns the embedding of cells into an adapted one.

    Attributes:
        own: components of the user's cells, r of them.
        mean: ``[R + H]`` means of the embedding over the user's cells.
        num_components: R.
        map: ``[R + H + r, D']``.
    """

    own: Basis
    mean: Floats
    num_components: int
    map: Floats

    def __post_init__(self) -> None:
        if self.map.shape[0] != len(self.mean) + self.own.width or not 0 < self.num_components <= len(self.mean):
            raise ValueError("the tensors of the adapter do not fit together")

    @cached_property
    def _table(self) -> Floats:
        return self.own.table()

    @property
    def width(self) -> int:
        """D'."""
        return self.map.shape[1]

    def apply(self, rows: Rows, embedding: Floats, corrections: Corrections) -> Floats:
        """Cells and their embedding ``[B, R + H]`` -> ``[B, D']``, rows of length 1.

        A cell's result has the same bits no matter which other cells there are: nothing here is summed across cells, or
        by BLAS, whose rounding depends on the number of rows.
        """
        features = self.features(rows, embedding, corrections)
        out = np.empty((len(features), self.width), dtype=np.float32)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            out[start : start + _BLOCK] = unit(np.einsum("bk,kd->bd", block, self.map, optimize=False))
        return out

    def features(self, rows: Rows, embedding: Floats, corrections: Corrections) -> Floats:
        """``[B, R + H + r]``: f and the head's output, centred, and the own scores; each of length 1."""
        centered = embedding - self.mean
        own = own_scores(self.own, self._table, rows, corrections)
        parts = [centered[:, : self.num_components], centered[:, self.num_components :], own]
        return np.concatenate([unit(part) for part in parts if part.shape[1]], axis=1)

    def as_bytes(self) -> bytes:
        """The adapter as a safetensors file."""
        options = np.array([self.num_components], dtype=np.int64)
        return save({**self.own.tensors(), "mean": self.mean, "map": self.map, "num_components": options})


def unit(array: Floats) -> Floats:
    """Rows of length 1."""
    length = np.sqrt(np.einsum("ij,ij->i", array, array, optimize=False))[:, None]
    return np.asarray(array / np.maximum(length, np.float32(1e-12)), dtype=np.float32)


def own_scores(basis: Basis, table: Floats, rows: Rows, corrections: Corrections) -> Floats:
    """Scores ``[B, r]`` of cells on components, corrected for the genes that each cell's file measured.

    ``table``: of the basis.
    """
    matrix = sparse.csr_matrix(
        (basis.transformed(rows.value), rows.gene_index, rows.indptr), shape=(len(rows), len(basis.components))
    )
    sums = np.asarray(matrix @ table, dtype=np.float32)  # row by row, in the order of the genes
    out = np.empty_like(sums)
    for chosen, solve, center in _by_set(rows, corrections):
        out[chosen] = np.einsum("br,rs->bs", sums[chosen] - center, solve, optimize=False)
    return out


def _by_set(rows: Rows, corrections: Corrections) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    for number, gene_set in enumerate(rows.gene_sets):
        chosen = np.flatnonzero(rows.gene_set_of_row == number)
        if len(chosen):
            found = corrections.of(gene_set)
            yield chosen, found.solve, found.center


@dataclass(frozen=True, eq=False)
class OpenAdapter:
    """An adapter with the corrections of the gene sets it has seen."""

    adapter: Adapter
    corrections: Corrections

    def apply(self, rows: Rows, embedding: Floats) -> Floats:
        """See `Adapter.apply`."""
        return self.adapter.apply(rows, embedding, self.corrections)


_opened: WeakKeyDictionary[Bundle, OpenAdapter | None] = WeakKeyDictionary()
_opening = Lock()


def adapter_of(bundle: Bundle) -> OpenAdapter | None:
    """The adapter of a bundle, opened once and released with the bundle; None if it has none. Raises BundleError."""
    with _opening:
        if bundle not in _opened:
            _opened[bundle] = _open(bundle) if ADAPTER_FILE in bundle.manifest["files"] else None
        return _opened[bundle]


def served_width(bundle: Bundle, plain: int) -> int:
    """Width of the embedding that a bundle serves; ``plain``: R + H, without an adapter."""
    found = adapter_of(bundle)
    return plain if found is None else found.adapter.width


def _open(bundle: Bundle) -> OpenAdapter:
    path = bundle.file(ADAPTER_FILE)
    try:
        with safe_open(path, framework="numpy") as tensors:
            stored = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 -- not iterable
        own = Basis.from_tensors(stored)
        adapter = Adapter(own, stored["mean"], int(stored["num_components"][0]), stored["map"])
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BundleError(f"{path} is not a valid adapter ({error}). Run `scpalm-train adapt` again.") from error
    if len(own.components) != len(bundle.vocabulary):
        raise BundleError(f"{path} is for {len(own.components)} genes, not the {len(bundle.vocabulary)} of the bundle.")
    return OpenAdapter(adapter, Corrections(own))
