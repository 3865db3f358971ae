"""Take the batches out of an embedding: optional centring, principal components, and Harmony.

Letters: B cells, R components of f, H width of the view head.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.integration.overlap import overlap
from scpalm.model.io.labels import Categories

# Width of the result. Chosen, like HEAD_WEIGHT and the order of the steps, on training sets (training/LOG.md).
WIDTH = 30
# The head's output counts more than f: it is trained to ignore technology.
HEAD_WEIGHT = 4.0
# Batches are centred unless that lowers their overlap by more than this: then they differ in composition.
_LOST_OVERLAP = 0.03
_LITTLE_OVERLAP = 0.1
_FEWEST_CELLS = 20
SEED = 0


@dataclass(frozen=True)
class BatchReport:
    """One batch.

    Attributes:
        name: value of the column. cells: number of cells.
        shift: distance of its mean from the mean of all cells, in sd of the embedding.
        overlap_before, overlap_after: see `overlap`, in the embedding and in the result.
    """

    name: str
    cells: int
    shift: float
    overlap_before: float
    overlap_after: float


@dataclass(frozen=True)
class IntegrationReport:
    """What was done.

    Attributes:
        method: in words. centred: whether each batch was centred first.
        batches: one entry per batch. warnings: what to know before using the result.
    """

    method: str
    centred: bool
    batches: tuple[BatchReport, ...]
    warnings: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, object]:
        """The report as JSON, without the warnings."""
        return {"method": self.method, "centred": self.centred, "batches": [asdict(one) for one in self.batches]}


@dataclass(frozen=True, eq=False)
class Integrated:
    """``values [B, WIDTH]`` float32, rows of length 1 (unused columns are 0), and what was done."""

    values: NDArray[np.float32]
    report: IntegrationReport


def integrate(embedding: NDArray[np.float32], num_components: int, batches: Categories) -> Integrated:
    """Take the batches out of an embedding. Seeded: the same cells give the same result.

    Args:
        embedding: ``[B, R + H]``, as `Encoded.embedding`. num_components: R.
        batches: the batch of each cell.

    Raises InputError for batches that cannot be integrated.

    Example:
        >>> integrate(adata.obsm["X_scpalm"], 256, Categories.of(adata.obs["donor"])).values
    """
    check_batches(batches)
    codes, count = batches.codes, len(batches.names)
    axes = fit_axes(embedding, num_components, batches)
    values = unit(harmony(axes.scores, batches)).astype(np.float32)
    after = overlap(values, codes, count)
    before, shifts = axes.overlap, _shifts(weigh(embedding, num_components), codes, count)
    reports = tuple(
        BatchReport(name, int((codes == i).sum()), float(shifts[i]), float(before[i]), float(after[i]))
        for i, name in enumerate(batches.names)
    )
    num_axes = int((axes.loadings != 0).any(axis=0).sum())
    method = f"{'each batch centred, ' if axes.centred else ''}{num_axes} principal components, Harmony"
    return Integrated(values, IntegrationReport(method, axes.centred, reports, tuple(_warnings(reports))))


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal components of an embedding, before Harmony.

    Attributes:
        mean: ``[R + H]`` of the weighted embedding. offset: ``[R + H]`` mean of its rows of length 1.
        loadings: ``[R + H, WIDTH]``, 0 for unused components.
        scores: ``[B, WIDTH]``. centred: whether each batch was centred. overlap: of each batch, without centring.
    """

    mean: NDArray[np.float64]
    offset: NDArray[np.float64]
    loadings: NDArray[np.float64]
    scores: NDArray[np.float64]
    centred: bool
    overlap: NDArray[np.float64]

    def project(self, weighted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores ``[cells, WIDTH]`` of further rows of the weighted embedding, centred on the mean of all cells."""
        return np.asarray((unit(weighted - self.mean) - self.offset) @ self.loadings)


def fit_axes(embedding: NDArray[np.float32], num_components: int, batches: Categories) -> Axes:
    """Choose whether to centre the batches, and fit the principal components. Arguments as for `integrate`."""
    codes, count = batches.codes, len(batches.names)
    weighted = weigh(embedding, num_components)
    mean = weighted.mean(axis=0)
    whole, centred = unit(weighted - mean), unit(center(weighted, codes, count))
    before, after_centering = overlap(whole, codes, count), overlap(centred, codes, count)
    centers = bool(after_centering.mean() > before.mean() - _LOST_OVERLAP)
    rows = centred if centers else whole
    offset, loadings = rows.mean(axis=0), _loadings(rows)
    # Rounded, so that the last bits, which depend on the number of threads, do not reach Harmony's clusters.
    scores = np.round((rows - offset) @ loadings, 6)
    return Axes(mean, offset, loadings, scores, centers, before)


def check_batches(batches: Categories) -> None:
    """Raise InputError unless there are two or more batches, and every cell has one."""
    missing = np.flatnonzero(batches.codes < 0)
    if len(missing):
        raise InputError(
            "no-batch",
            f"{len(missing)} of {len(batches.codes)} cells have no batch; the first is cell {missing[0]}.",
            hint="Fill the column, or remove these cells.",
        )
    if len(batches.names) < 2:
        raise InputError(
            "one-batch",
            f"All cells are of the batch '{batches.names[0][:50]}'." if batches.names else "There are no cells.",
            hint="Name a column of obs with two or more values, or use /embed.",
        )
    if len(batches.names) > len(batches.codes) // 2:
        raise InputError(
            "too-many-batches",
            f"There are {len(batches.names)} batches of {len(batches.codes)} cells.",
            hint="Name a column that says where a cell comes from, such as donor or technology, not one of cell names.",
        )


def weigh(embedding: NDArray[np.float32], num_components: int) -> NDArray[np.float64]:
    """f and the head's output, the latter times HEAD_WEIGHT."""
    weighted = embedding.astype(np.float64)
    weighted[:, num_components:] *= HEAD_WEIGHT
    return weighted


def unit(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1."""
    return np.asarray(array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12))


def center(array: NDArray[np.float64], codes: NDArray[np.int32], num_batches: int) -> NDArray[np.float64]:
    """Every row minus the mean of its batch."""
    return np.asarray(array - _means(array, codes, num_batches)[codes])


def _means(array: NDArray[np.float64], codes: NDArray[np.int32], num_batches: int) -> NDArray[np.float64]:
    return np.stack([array[codes == batch].mean(axis=0) for batch in range(num_batches)])


def _shifts(array: NDArray[np.float64], codes: NDArray[np.int32], num_batches: int) -> NDArray[np.float64]:
    spread = max(float(np.sqrt(array.var(axis=0).sum())), 1e-12)
    return np.asarray(np.linalg.norm(_means(array, codes, num_batches) - array.mean(axis=0), axis=1) / spread)


def _loadings(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[width, WIDTH]``, 0 beyond the rank; signs are fixed by the largest loading."""
    centred = rows - rows.mean(axis=0)
    found = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, : min(WIDTH, len(rows) - 1)]
    largest = np.abs(found).argmax(axis=0)
    out = np.zeros((rows.shape[1], WIDTH))
    out[:, : found.shape[1]] = found * np.sign(found[largest, np.arange(found.shape[1])])
    return out


def can_integrate() -> bool:
    """Whether harmonypy is installed. It is an extra, because it is under the GPL."""
    return importlib.util.find_spec("harmonypy") is not None


def harmony(scores: NDArray[np.float64], batches: Categories) -> NDArray[np.float64]:
    """Scores ``[B, WIDTH]`` corrected by Harmony (Korsunsky et al. 2019), on one thread."""
    import harmonypy
    import pandas as pd

    components = scores[:, : min(WIDTH, len(scores) - 1)]  # the rest is 0
    clusters = int(np.clip(round(len(components) / 30), 2, 100))
    table = pd.DataFrame({"batch": np.array(batches.names)[batches.codes]})
    found = harmonypy.run_harmony(
        components, table, "batch", nclust=clusters, random_state=SEED, ncores=1, verbose=False
    )
    corrected = np.asarray(found.Z_corr, dtype=np.float64)
    out = np.zeros_like(scores)
    out[:, : components.shape[1]] = corrected if corrected.shape == components.shape else corrected.T
    return out


def _warnings(batches: Sequence[BatchReport]) -> list[str]:
    found = []
    for batch in batches:
        if batch.overlap_after < _LITTLE_OVERLAP:
            found.append(
                f"Batch '{batch.name[:50]}' shares hardly any neighbours with the other batches, even after "
                "integration. It may hold other cell types; then its difference is biology, and was not removed."
            )
        if batch.cells < _FEWEST_CELLS:
            found.append(f"Batch '{batch.name[:50]}' has {batch.cells} cells: its shift is uncertain.")
    return found
