"""The ``EmbeddingSource`` protocol, which models and baselines implement, and the choice among several sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix

MODEL_METHODS = ("embedding", "basis", "h_C", "mean_tokens", "concat_tokens", "readout", "untrained")
BASELINE_METHODS = ("hvg2000", "pca50", "pca256")
_log = logging.getLogger(__name__)


class NotApplicable(InputError):
    """A method cannot embed these cells, or the package it needs is missing. The other methods still can."""


class EmbeddingSource(Protocol):
    """Named methods that embed the cells of a file.

    Attributes:
        methods: their names, in the order of the table.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...

    def zero_shot(self, method: str, dataset: str) -> bool:
        """False for a method that is fitted to ``dataset`` or was trained on it."""
        ...

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.floating]:
        """``[cells, width]``, in the order of ``matrix``. Raises InputError for cells it cannot embed."""
        ...


class Methods:
    """The methods to score, each with the source that provides it.

    Attributes:
        names: the methods, in the order of the table.
    """

    def __init__(
        self,
        sources: Sequence[EmbeddingSource],
        chosen: Sequence[str] | None = None,
        default: Sequence[str] | None = None,
    ) -> None:
        """Choose among the methods of ``sources``.

        Args:
            sources: providers.
            chosen: the methods that the user named.
            default: methods without a choice, those that no source provides left out; None: all.

        Raises ValueError for a chosen method that no source provides, or that several do.
        """
        self._sources = dict(_owners(sources))
        self._is_chosen = chosen is not None
        if chosen is None:
            chosen = [name for name in self._sources if default is None or name in default]
        unknown = [name for name in chosen if name not in self._sources]
        if unknown:
            raise ValueError(f"Unknown method '{unknown[0]}': choose one of {', '.join(self._sources)}.")
        self.names = tuple(chosen)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return self._sources[method].zero_shot(method, dataset)

    def embed(self, method: str, matrix: CellMatrix, dataset: str) -> NDArray[np.floating] | None:
        """``[cells, width]``, or None after a warning if the method is not applicable and the user did not name it.

        Raises InputError for cells that cannot be embedded.
        """
        try:
            return self._sources[method].embed(method, matrix)
        except NotApplicable as error:
            if self._is_chosen:
                raise
            _log.warning("%s: %s is left out. %s", dataset, method, error)
            return None


def _owners(sources: Sequence[EmbeddingSource]) -> Iterator[tuple[str, EmbeddingSource]]:
    seen: set[str] = set()
    for source in sources:
        for method in source.methods:
            if method in seen:
                raise ValueError(f"Two sources provide the method '{method}'.")
            seen.add(method)
            yield method, source


def trained_on(bundle: Bundle) -> set[str]:
    """Names of the data sets that the bundle's manifest lists as training data."""
    return {str(entry.get("file", "")).removesuffix(".h5ad") for entry in bundle.manifest["training_data"]}
