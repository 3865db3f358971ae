"""Fit the kernel head to the responses of some lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.kernel.head import MutationEffects, kernel
from scpalm.model.drug_response.kernel.profile import FactorModel, ProfileMap, quantile_mapped
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.kernel.mutations import MIN_MUTATED, centred_calls, effect_variances, known_pairs
from scpalm.training.drug_response.kernel.solve import Prior, solve

Floats = NDArray[np.float32]
NUM_FACTORS = 40
MIN_VARIANCE = 0.02  # log2 units squared
# Chosen by ten folds over lines, and on validation pairs of the published split: training/LOG.md.
DRUG_SHRINKAGE = 0.15  # share of each drug's variance that it has alone
NOISE = 0.5  # variance of an error, as a share of the drug's variance
ROUNDS = 2  # in which mutation effects enter


@dataclass(frozen=True, eq=False)
class Responses:
    """Responses as a matrix of lines and drugs.

    Attributes:
        mean: ``[L, D]`` mean of each pair's measurements, 0 where there are none. number: ``[L, D]`` of them.
    """

    mean: Floats
    number: NDArray[np.int64]

    @classmethod
    def of(cls, tables: Tables, rows: NDArray[np.int64]) -> Responses:
        """From the ``rows`` of the tables."""
        pairs, size = tables.pair_of[rows], len(tables.lines) * len(tables.drugs)
        number = np.bincount(pairs, minlength=size)
        mean = np.bincount(pairs, tables.ln_ic50[rows], size) / np.maximum(number, 1)
        shape = len(tables.lines), len(tables.drugs)
        return cls(mean.reshape(shape).astype(np.float32), number.reshape(shape))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """``[L, D]``."""
        return self.number > 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted process, without intervals.

    Attributes:
        lines: ``[T]`` numbers of the training lines.
        profiles: the map of profiles; its lines are the training lines.
        weights: ``[T, D]`` by setting. mutations: effects.
        drug_mean: ``[D]`` of the training lines.
    """

    lines: NDArray[np.int64]
    profiles: ProfileMap
    weights: dict[str, Floats]
    mutations: MutationEffects
    drug_mean: Floats

    def deviations(self, profiles: Floats, mutation: NDArray[np.integer] | None = None) -> Floats:
        """``[C, D]`` from profiles ``[C, P]`` in log2(TPM + 1), as the served head computes it."""
        features = self.profiles.map(profiles).features
        setting = "expression" if mutation is None else "mutation"
        found: Floats = kernel(features, self.profiles.features) @ self.weights[setting]
        return found if mutation is None else found + self.mutations.of(mutation, found.shape[1])


def fit(tables: Tables, responses: Responses, lines: NDArray[np.int64]) -> Fitted:
    """Fit to the responses of ``lines``; other lines are not read."""
    measured, number = responses.measured[lines], responses.number[lines]
    count = measured.sum(axis=0)
    overall = responses.mean[lines][measured].mean()
    mean = np.where(count, (responses.mean[lines] * measured).sum(axis=0) / np.maximum(count, 1), overall)
    deviations = ((responses.mean[lines] - mean) * measured).astype(np.float32)
    covariance = _covariance(deviations, measured)
    variance = np.diag(covariance)
    profiles = profile_map(tables.expression[lines], deviations, measured)
    gram = kernel(profiles.features, profiles.features)
    noise = (NOISE * variance / np.maximum(number, 1)).astype(np.float32)
    shrunk = ((1 - DRUG_SHRINKAGE) * covariance + DRUG_SHRINKAGE * np.diag(variance)).astype(np.float32)

    calls, frequency = centred_calls(tables.mutation, lines)
    mutated = (tables.mutation[lines] == 1).sum(axis=0)
    genes = np.flatnonzero(mutated >= MIN_MUTATED)
    some = calls[np.ix_(lines, genes)]
    none = np.zeros((len(lines), 0), np.float32), np.zeros((0, len(mean)), np.float32)
    weights = solve(Prior(gram, shrunk, noise, *none), measured, deviations)
    expression = weights @ shrunk
    known = known_pairs([tables.mutation_names[gene] for gene in genes], tables.drugs)
    information = _information(gram, some)[:, None] * (count / len(lines)) / np.maximum(variance, 1e-6)
    effects = np.zeros((len(genes), len(mean)), np.float32)
    for _ in range(ROUNDS):
        effects = effect_variances(some, weights, np.maximum(information, 1e-9), known, effects)
        used = np.flatnonzero(effects.any(axis=1))
        weights = solve(Prior(gram, shrunk, noise, some[:, used], effects[used]), measured, deviations)
    gene, drug = np.nonzero(effects)
    values = (effects * (some.T @ weights))[gene, drug]
    return Fitted(
        lines,
        profiles,
        {"expression": expression, "mutation": weights @ shrunk},
        MutationEffects(genes[gene], drug, values, frequency),
        mean.astype(np.float32),
    )


def profile_map(expression: Floats, deviations: Floats, measured: NDArray[np.bool_]) -> ProfileMap:
    """The map fitted to bulk profiles ``[T, P]`` log2(TPM + 1).

    A gene's weight in the kernel is the fourth root of its mean squared correlation with the responses to all drugs.
    """
    quantiles = np.sort(expression, axis=1).mean(axis=0, dtype=np.float64)
    # Half precision, as in the bundle, so that training and serving see the same lines.
    lines = quantile_mapped(expression, quantiles).astype(np.float16).astype(np.float64)
    mean, sd = lines.mean(axis=0), lines.std(axis=0)
    sd = np.where(sd > 1e-6, sd, 1.0)
    _, values, axes = np.linalg.svd(lines - mean, full_matrices=False)
    loading = axes[:NUM_FACTORS].T * (values[:NUM_FACTORS] / np.sqrt(len(lines)))
    variance = np.maximum(lines.var(axis=0) - np.square(loading).sum(axis=1), MIN_VARIANCE)
    scale = np.sqrt(np.square(deviations).sum(axis=0) / np.maximum(measured.sum(axis=0), 1))
    response = deviations / np.maximum(scale, 1e-6)
    correlation = ((lines - mean) / sd).T @ response / np.maximum(measured.sum(axis=0), 1)
    relevance = np.sqrt(np.square(correlation).mean(axis=1))
    weight = np.sqrt(relevance / relevance.mean())
    parts = (part.astype(np.float32) for part in (mean, sd, loading, variance))
    return ProfileMap(lines.astype(np.float32), FactorModel(*parts), weight.astype(np.float32))


def _covariance(deviations: Floats, measured: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``[D, D]`` covariance of the drugs over pairs of measured lines, made positive semidefinite."""
    mask = measured.astype(np.float64)
    both = np.maximum(mask.T @ mask, 1)
    values, vectors = np.linalg.eigh(deviations.T.astype(np.float64) @ deviations / both)
    found: NDArray[np.float64] = (vectors * np.maximum(values, 0)) @ vectors.T
    return found


def _information(gram: Floats, calls: Floats) -> NDArray[np.float64]:
    """``[G]`` information on the effect of each gene if every line is measured and the drug's variance is 1."""
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    return np.square(vectors.T @ calls).T @ (1 / (np.maximum(values, 0) + NOISE))
