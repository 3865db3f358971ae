"""The components that the read-out f projects a cell on, corrected for the genes that its file measured.

Letters: G genes of the vocabulary, R components, B cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet
from scpalm.model.read_out.exact import exact_gram, inverse

Floats = NDArray[np.float32]
# Keeps the matrix of a gene set that has no component in it invertible.
_LEAST_RIDGE = 1e-12
# Genes converted to float64 at once.
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Correction:
    """What turns the sums of one gene set into scores: ``z = (sums - center) @ solve``.

    Attributes:
        center: ``[R]`` float32, the sums of a cell that has the corpus' mean in every measured gene.
        solve: ``[R, R]`` float32, the ridge solution for the measured genes.
        log_measured: log10 of the number of measured genes, minus 4.
    """

    center: Floats
    solve: Floats
    log_measured: float


@dataclass(frozen=True, eq=False)
class Basis:
    """Components of a corpus.

    With ``y = log1p(value_scale * expm1(x))`` for a cell x (log1p CP10K), the scores of a cell whose file measured the
    genes m are ``z = (gene_weight * (y - mean))_m V_m (V_m' V_m + ridge * trace / R)^-1``, and ``f = z / |z|``. The
    length of z is mostly depth and technology; its direction separates cell types.

    Attributes:
        components: ``[G, R]`` int16, V in units of ``scale``. Whole numbers make ``V' V`` exact in float64, so that f
            does not depend on the number of threads.
        scale: ``[R]`` float32.
        gene_weight: ``[G]`` float32.
        mean: ``[G]`` float32, mean of y over the cells of the corpus that measured the gene.
        ridge: strength relative to the mean of the diagonal of ``V_m' V_m``.
        value_scale: 0.1 reads values as log1p of counts per thousand.
    """

    components: NDArray[np.int16]
    scale: Floats
    gene_weight: Floats
    mean: Floats
    ridge: float
    value_scale: float

    @classmethod
    def of(
        cls, vectors: NDArray[np.floating], gene_weight: Floats, mean: Floats, *, ridge: float, value_scale: float
    ) -> Basis:
        """Quantise ``vectors [G, R]``."""
        scale = (np.abs(vectors).max(axis=0).clip(min=1e-12) / np.iinfo(np.int16).max).astype(np.float32)
        components = np.rint(vectors / scale).astype(np.int16)
        return cls(components, scale, gene_weight.astype(np.float32), mean.astype(np.float32), ridge, value_scale)

    def select(self, count: int) -> Basis:
        """The first ``count`` components."""
        return replace(self, components=self.components[:, :count], scale=self.scale[:count])

    @property
    def width(self) -> int:
        """R."""
        return len(self.scale)

    def table(self) -> Floats:
        """``[G, R]`` float32: the contribution of one unit of y to the sums, A in `method.md`'s identity."""
        return self.components * (self.gene_weight[:, None] * self.scale)

    def transformed(self, value: Floats) -> Floats:
        """log1p CP10K -> log1p of counts per ``1e4 * value_scale``, any shape."""
        return np.log1p(np.expm1(value) * np.float32(self.value_scale))

    def correction(self, gene_set: GeneSet) -> Correction:
        """The correction for the genes of a file; takes some 0.1 s. Raises ValueError without a measured gene."""
        genes = np.flatnonzero(gene_set.measured)
        if not len(genes):
            raise ValueError("the file measured none of the model's genes")
        scale = self.scale.astype(np.float64)
        gram = self._gram(gene_set.measured) * scale[:, None] * scale
        gram[np.diag_indices(self.width)] += max(self.ridge * np.trace(gram) / self.width, _LEAST_RIDGE)
        center = np.zeros(self.width)
        for start in range(0, len(genes), _CHUNK):
            part = genes[start : start + _CHUNK]
            weight = self.mean[part].astype(np.float64) * self.gene_weight[part]
            center += np.einsum("g,gr->r", weight, self.components[part].astype(np.float64), optimize=False)
        log_measured = float(np.float32(np.log10(len(genes)) - 4))
        return Correction((center * scale).astype(np.float32), inverse(gram).astype(np.float32), log_measured)

    def _gram(self, measured: NDArray[np.bool_]) -> NDArray[np.float64]:
        """``V_m' V_m`` in units of the scale, exact."""
        missing = np.flatnonzero(~measured)
        if 2 * len(missing) < len(measured):
            return self._whole_gram - exact_gram(self.components, missing)
        return exact_gram(self.components, np.flatnonzero(measured))

    @cached_property
    def _whole_gram(self) -> NDArray[np.float64]:
        return exact_gram(self.components, np.arange(len(self.components)))

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """For a file; `from_tensors` reads them."""
        return {
            "basis.components": self.components,
            "basis.scale": self.scale,
            "basis.gene_weight": self.gene_weight,
            "basis.mean": self.mean,
            "basis.options": np.array([self.ridge, self.value_scale], dtype=np.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Basis:
        """Raises KeyError or ValueError for tensors that are missing or do not fit together."""
        components, scale, weight, mean, options = (
            np.asarray(tensors[f"basis.{name}"]) for name in ("components", "scale", "gene_weight", "mean", "options")
        )
        genes, width = components.shape
        if components.dtype != np.int16 or scale.shape != (width,) or not weight.shape == mean.shape == (genes,):
            raise ValueError("the tensors of the basis do not fit together")
        scale, weight, mean = (np.asarray(array, dtype=np.float32) for array in (scale, weight, mean))
        return cls(components, scale, weight, mean, float(options[0]), float(options[1]))
