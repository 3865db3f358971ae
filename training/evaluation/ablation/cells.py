"""The labelled cells that an ablation scores its variants on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.embeddings import sparse_batches
from scpalm.training.metrics.labels import Labels, encode_labels

_MOST_CELLS, _FEWEST_CELLS = 2000, 100  # of a data set of the corpus, to score on


@dataclass(frozen=True, eq=False)
class Cells:
    """Labelled cells to score on, as input of the networks. seen: whether they are among the training cells."""

    name: str
    labels: Labels
    batches: list[SparseCells]
    seen: bool

    @classmethod
    def of_file(cls, dataset: Dataset, corpus: Corpus) -> Cells:
        """The cells of a labelled file."""
        return cls(dataset.name, dataset.labels, sparse_batches(dataset.matrix, corpus.vocabulary), seen=False)

    @classmethod
    def of_corpus(cls, corpus: Corpus) -> list[Cells]:
        """The three data sets of a corpus with most labelled cells: trained on, but without their labels.

        Raises InputError when it has none with two labels of ten cells.
        """
        found: list[tuple[int, str, NDArray[np.int64], Labels]] = []
        names = corpus.obs["dataset"].astype(str).to_numpy()
        for name in sorted(set(names[~corpus.obs["simulated"].to_numpy(bool)])):
            rows = np.flatnonzero(names == name)[:_MOST_CELLS]
            try:
                labels = encode_labels(corpus.obs["cell_type"].iloc[rows])
            except InputError:
                continue
            if len(rows) >= _FEWEST_CELLS and np.sum(np.bincount(labels.codes[labels.labelled]) >= 10) > 1:
                found.append((int(labels.labelled.sum()), name, rows, labels))
        if not found:
            raise InputError(
                "no-labels",
                f"No data set of the corpus has {_FEWEST_CELLS} cells with two cell types of ten.",
                hint="Name labelled cells with --file.",
            )
        best = sorted(found, key=lambda one: (-one[0], one[1]))[:3]
        return [
            cls(name, labels, [corpus.batch(rows[i : i + 256]) for i in range(0, len(rows), 256)], seen=True)
            for _, name, rows, labels in best
        ]
