"""Expression profiles of any platform, brought to the form of the bulk profiles that the kernel head was trained on.

Three steps, the same for bulk profiles, summed cells and single cells:

1. *Quantiles*: the measured genes of a profile are ranked, and each gets the mean value that training lines have at its
   rank. This removes depth, units and other monotone differences.
2. *Noise*: a factor model of the training lines (probabilistic PCA with a variance for each gene) explains the profile
   together with independent noise. The noise level of each profile is the one with the highest likelihood: near 0 for
   bulk, 1 to 2 (log2) for summed cells, higher for single cells.
3. *Posterior mean*: the factor model then gives the expected bulk profile of all genes, measured or not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.kernel.products import fixed_product

Floats = NDArray[np.float32]
# Candidates for the noise of a profile, sd in log2(TPM + 1).
NOISE_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.5, 4.0)
# A profile that expresses a smaller share of its measured genes is sparse: a single cell, or too few of them. Training
# lines express at least 0.85, sums of ten cells or more 0.5 to 0.98, single cells 0.02 to 0.5.
SPARSE_SHARE = 0.5
SPARSE = len(NOISE_LEVELS)
_MAX_CACHED_GENE_SETS = 16


def log2_tpm(log1p_cp10k: Floats) -> Floats:
    """``log1p(CP10K)`` -> ``log2(TPM + 1)``, any shape, keeping NaN."""
    return np.log2(np.expm1(log1p_cp10k) * np.float32(100) + np.float32(1))


def rank_values(quantiles: NDArray[np.floating]) -> Floats:
    """``[2 O - 1]`` values at ranks 0, 1/2, 1, ...: those of ``quantiles [O]``, ascending, and means of neighbours."""
    twice = np.arange(2 * len(quantiles) - 1)
    return ((quantiles[twice // 2] + quantiles[(twice + 1) // 2]) / 2).astype(np.float32)


def quantile_mapped(profiles: Floats, quantiles: NDArray[np.floating]) -> Floats:
    """Each row of ``profiles [C, O]`` with the value of ``quantiles [O]``, ascending, at its rank.

    Ties get the mean of their ranks; between two ranks, the mean of both values.
    """
    order = profiles.argsort(axis=1, kind="stable")
    ascending = np.take_along_axis(profiles, order, axis=1)
    place = np.arange(profiles.shape[1])
    differs = ascending[:, 1:] != ascending[:, :-1]
    first, last = (np.zeros(profiles.shape, np.int64) for _ in range(2))
    np.maximum.accumulate(np.where(differs, place[1:], 0), axis=1, out=first[:, 1:])
    last[:, -1] = place[-1]
    ends = np.where(differs, place[:-1], place[-1])[:, ::-1]
    last[:, :-1] = np.minimum.accumulate(ends, axis=1)[:, ::-1]
    twice = first + last
    out = np.empty(profiles.shape, np.float32)
    np.put_along_axis(out, order, rank_values(quantiles)[twice], axis=1)
    return out


@dataclass(frozen=True, eq=False)
class MappedProfiles:
    """Profiles of C cells or groups in the form of the training lines.

    Attributes:
        features: ``[C, P]`` z-scores of the expected bulk profile, each gene times its weight.
        noise: ``[C]`` position in ``NOISE_LEVELS``, or ``SPARSE``.
        distance: ``[C]`` 1 minus the correlation with the nearest training line, over the measured genes, from 0 to 2.
        nearest: ``[C]`` number of that line.
    """

    features: Floats
    noise: NDArray[np.int64]
    distance: Floats
    nearest: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FactorModel:
    """Profiles of training lines: ``mean + loading z + e``, z and e normal, with ``variance`` of each gene's e.

    Attributes:
        mean, sd: ``[P]`` of each gene, log2(TPM + 1).
        loading: ``[P, K]``. variance: ``[P]``.
    """

    mean: Floats
    sd: Floats
    loading: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """The posterior mean at one noise level, for one set of measured genes.

    Attributes:
        inverse: ``[O]`` 1 / variance of the measured genes. to_scores: ``[O, K]``. scores: ``[K, K]``, so that the
            factors are ``(y inverse) loading scores``. keep: ``[O]`` share of a gene's own deviation that is kept.
        log_determinant: of the covariance.
    """

    inverse: Floats
    to_scores: Floats
    scores: Floats
    keep: Floats
    log_determinant: float


class ProfileMap:
    """Maps profiles; see the module's text.

    Args:
        lines: ``[L, P]`` training lines after step 1, log2(TPM + 1).
        factors: the factor model of the training lines.
        weight: ``[P]`` weight of each gene in the kernel.
    """

    def __init__(self, lines: Floats, factors: FactorModel, weight: Floats) -> None:
        self.lines, self.factors, self.weight = lines, factors, weight
        self.features = self._features(lines)
        self._cached: OrderedDict[bytes, GeneSetMap] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def of(cls, tensors: Mapping[str, Floats]) -> ProfileMap:
        """From the arrays of a bundle. Raises KeyError for a missing one, ValueError for a wrong shape."""
        parts = {name: tensors[f"profile.{name}"] for name in ("lines", "mean", "sd", "loading", "variance", "weight")}
        num_genes = parts["lines"].shape[1]
        for name, part in parts.items():
            if name != "lines" and len(part) != num_genes:
                raise ValueError(f"tensor 'profile.{name}' has {len(part)} genes, not {num_genes}")
            if not np.isfinite(part).all():
                raise ValueError(f"tensor 'profile.{name}' has a value that is not finite")
        factors = FactorModel(parts["mean"], parts["sd"], parts["loading"], parts["variance"])
        return cls(parts["lines"], factors, parts["weight"])

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """The arrays of a bundle, as `of` reads them; the lines in half precision."""
        found = vars(self.factors) | {"weight": self.weight, "lines": self.lines.astype(np.float16)}
        return {f"profile.{name}": value for name, value in found.items()}

    def map(self, profiles: Floats) -> MappedProfiles:
        """Map profiles ``[C, P]`` in log2(TPM + 1), NaN where a gene was not measured."""
        out = MappedProfiles(
            np.empty(profiles.shape, np.float32),
            np.empty(len(profiles), np.int64),
            np.empty(len(profiles), np.float32),
            np.empty(len(profiles), np.int64),
        )
        for rows, gene_set in self.by_gene_set(profiles):
            for name, values in vars(gene_set.map(profiles[rows])).items():
                getattr(out, name)[rows] = values
        return out

    def by_gene_set(self, profiles: Floats) -> Iterator[tuple[NDArray[np.int64], GeneSetMap]]:
        """The rows of profiles ``[C, P]`` that measured the same genes, with the map for these genes."""
        measured = np.isfinite(profiles)
        if (measured == measured[:1]).all():
            yield np.arange(len(profiles)), self._gene_set(measured[0])
            return
        patterns, which = np.unique(measured, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            yield np.flatnonzero(which.reshape(-1) == number), self._gene_set(pattern)

    def _gene_set(self, measured: NDArray[np.bool_]) -> GeneSetMap:
        key = np.packbits(measured).tobytes()
        with self._lock:
            if key not in self._cached:
                self._cached[key] = GeneSetMap(self, np.flatnonzero(measured))
                if len(self._cached) > _MAX_CACHED_GENE_SETS:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(key)
            return self._cached[key]

    def _features(self, profiles: Floats) -> Floats:
        return ((profiles - self.factors.mean) / self.factors.sd * self.weight).astype(np.float32)


class GeneSetMap:
    """Maps the profiles of one set of O measured genes.

    Attributes:
        genes: ``[O]`` their columns.
        quantiles: ``[O]`` mean values of training lines by rank.
        mean: ``[O]`` of each gene.
        lines: ``[L, O]`` z-scores of training lines, centred and of length 1.
        levels: what to compute at each of ``NOISE_LEVELS``.
    """

    def __init__(self, whole: ProfileMap, genes: NDArray[np.int64]) -> None:
        self._whole, self.genes = whole, genes
        factors = whole.factors
        lines = whole.lines[:, genes].astype(np.float64)
        self.quantiles = np.sort(lines, axis=1).mean(axis=0)
        self.mean = factors.mean[genes]
        self.lines = _standard(((lines - self.mean) / factors.sd[genes]).astype(np.float32))
        self.levels = tuple(_noise(factors, genes, level) for level in NOISE_LEVELS)

    def map(self, profiles: Floats) -> MappedProfiles:
        deviation = quantile_mapped(profiles[:, self.genes], self.quantiles) - self.mean  # [C, O]
        noise, expected = self._posterior(deviation)
        similarity = fixed_product(_standard(deviation / self._whole.factors.sd[self.genes]), self.lines.T)
        nearest = similarity.argmax(axis=1)
        expressed = (profiles[:, self.genes] > 0).mean(axis=1)
        noise = np.where(expressed < SPARSE_SHARE, SPARSE, noise)
        distance = np.float32(1) - np.take_along_axis(similarity, nearest[:, None], axis=1)[:, 0]
        return MappedProfiles(self._whole._features(expected), noise, np.maximum(distance, 0), nearest)

    def _posterior(self, deviation: Floats) -> tuple[NDArray[np.int64], Floats]:
        """The most likely noise level of each profile ``[C]``, and its expected bulk profile ``[C, P]``."""
        factors, genes = self._whole.factors, self.genes
        likelihood = np.empty((len(self.levels), len(deviation)))
        scores = []
        for number, level in enumerate(self.levels):
            projected = fixed_product(deviation, level.to_scores)  # [C, K]
            score = fixed_product(projected, level.scores)
            square = (np.square(deviation) * level.inverse).sum(axis=1)
            explained = (projected * score).sum(axis=1)
            likelihood[number] = -(square - explained + level.log_determinant) / 2
            scores.append(score)
        noise = likelihood.argmax(axis=0)
        score = np.stack(scores)[noise, np.arange(len(deviation))]
        fitted = fixed_product(score, np.ascontiguousarray(factors.loading.T))  # [C, P]
        keep = np.stack([level.keep for level in self.levels])[noise]
        fitted[:, genes] += keep * (deviation - fitted[:, genes])
        return noise, fitted + factors.mean


def _noise(factors: FactorModel, genes: NDArray[np.int64], level: float) -> NoiseLevel:
    loading = factors.loading[genes].astype(np.float64)
    own = factors.variance[genes].astype(np.float64)
    variance = own + level**2
    to_scores = loading / variance[:, None]
    # einsum, not BLAS: its order of summation does not depend on the number of threads.
    precision = np.eye(loading.shape[1]) + np.einsum("ok,oj->kj", to_scores, loading, optimize=False)
    _, log_determinant = np.linalg.slogdet(precision)
    return NoiseLevel(
        (1 / variance).astype(np.float32),
        to_scores.astype(np.float32),
        np.linalg.inv(precision).astype(np.float32),
        (own / variance).astype(np.float32),
        float(log_determinant + np.log(variance).sum()),
    )


def _standard(profiles: Floats) -> Floats:
    """Each row centred and of length 1, so that products of rows are correlations."""
    centred = profiles - profiles.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=1))
    return (centred / np.maximum(length, 1e-12)[:, None]).astype(np.float32)
