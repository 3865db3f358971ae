"""Read cells for the pathway analysis: their codes, their values in the model's genes, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.engine import Engine, load
from scpalm.model.errors import InputError
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.training.corpus.reader import Corpus

CHUNK = 512
TOTALS = "total_UMIs"


@dataclass(frozen=True, eq=False)
class PathwayCells:
    """B cells.

    Attributes:
        codes: ``[B, N]``. values: ``[B, G]`` log1p CP10K. labels: ``[B]``, "" for none.
        symbols: ``[G]`` of the vocabulary.
    """

    codes: NDArray[np.int32]
    values: sparse.csr_matrix
    labels: NDArray[np.str_]
    symbols: list[str]

    def __len__(self) -> int:
        return len(self.codes)


def read_pathway_cells(bundle: Bundle, sources: Sequence[Path], label: str) -> PathwayCells:
    """Cells of h5ad files and training corpora (folders), in order, encoded by the bundle.

    ``obs.total_UMIs`` gives a cell's total if a file has only some genes. ``label``: column of obs.

    Raises:
        InputError, CorpusError: unreadable sources, or a corpus with genes other than the bundle's.
    """
    engine = load(bundle, "cpu")
    codes, tables, labels = [], [], []
    for source in sources:
        parts, names = _corpus_rows(source, bundle) if source.is_dir() else _file_rows(source, engine, label)
        labels += names
        for rows in parts:
            codes.append(engine.session.encode(rows).codes)
            tables.append(
                sparse.csr_matrix((rows.value, rows.gene_index, rows.indptr), shape=(len(rows), len(bundle.vocabulary)))
            )
    return PathwayCells(
        np.concatenate(codes), sparse.vstack(tables, format="csr"), np.array(labels), list(bundle.vocabulary.symbols)
    )


def _file_rows(path: Path, engine: Engine, label: str) -> tuple[list[Rows], list[str]]:
    with engine.read(path, totals_column=TOTALS) as cells:
        parts = [prepared.rows for prepared in cells]
        column = cells.source.obs_column(label)
        names = [""] * cells.num_cells if column is None else [str(value) for value in column]
    return parts, names


def _corpus_rows(path: Path, bundle: Bundle) -> tuple[list[Rows], list[str]]:
    corpus = Corpus(path)
    if corpus.vocabulary.ensembl_ids != bundle.vocabulary.ensembl_ids:
        raise InputError(
            "other-genes",
            f"{path} and {bundle.path} have different genes.",
            hint="Name the corpus that the bundle was trained on.",
        )
    sets = tuple(GeneSet(measured) for measured in corpus.measured)
    files = corpus.obs["file"].to_numpy(np.int32)
    parts = []
    for start in range(0, len(corpus), CHUNK):
        cells = [corpus.cell(row) for row in range(start, min(start + CHUNK, len(corpus)))]
        parts.append(
            Rows(
                np.concatenate([[0], np.cumsum([len(genes) for genes, _ in cells])]).astype(np.int64),
                np.concatenate([genes for genes, _ in cells]),
                np.concatenate([values for _, values in cells]),
                sets,
                files[start : start + len(cells)],
            )
        )
    return parts, corpus.obs["cell_type"].fillna("").astype(str).tolist()


def label_shares(
    codes: NDArray[np.int32], labels: NDArray[np.str_], num_codes: int
) -> tuple[list[str], NDArray[np.float64]]:
    """Labels with at least 20 cells, and ``[labels, K]`` mean share of each code among their tokens."""
    names, counts = np.unique(labels, return_counts=True)
    kept = [str(name) for name, count in zip(names, counts, strict=True) if name and count >= 20]
    rows = [np.bincount(codes[labels == name].ravel(), minlength=num_codes) for name in kept]
    table = np.array(rows, dtype=np.float64).reshape(len(kept), num_codes)
    return kept, table / np.maximum(table.sum(axis=1, keepdims=True), 1)


def draw_heatmap(names: Sequence[str], shares: NDArray[np.floating], out: Path) -> None:
    """Write a PNG of codes by cell type: a code's share in a type over its mean share, on a log2 scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    mean = shares.mean(axis=0)
    used = np.flatnonzero(mean > 0)
    fold = np.log2((shares[:, used] + 1e-4) / (mean[used] + 1e-4))
    order = np.lexsort((used, fold.argmax(axis=0)))
    figure, axis = plt.subplots(figsize=(12, 1.5 + 0.22 * len(names)), constrained_layout=True)
    image = axis.imshow(fold[:, order], aspect="auto", cmap="RdBu_r", vmin=-2, vmax=2, interpolation="nearest")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set(xticks=[], xlabel=f"{len(used)} pathway codes, ordered by the type that uses them most")
    figure.colorbar(image, label="log2 of share over mean share", shrink=0.8)
    figure.savefig(out, dpi=110)
    plt.close(figure)
