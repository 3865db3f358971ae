"""A Gaussian process over training lines and drugs: mapped profiles and mutation calls -> ln IC50 relative to the drug.

The deviation of ln IC50 from the drug's mean over the training lines has the prior covariance
``K(line, line') C(drug, drug') + mutation effects``. ``K`` is a sum of Gaussian kernels on mapped profiles; the
narrowest one knows a training line again. ``C`` is learned from the training lines, so that related drugs share what
they learn. Training solves for the weights (`scpalm.training.drug_response.kernel`); serving needs two products.

Letters: C cells, D drugs of the table, L training lines, P genes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.kernel.products import fixed_product
from scpalm.model.drug_response.kernel.profile import SPARSE, ProfileMap

Floats = NDArray[np.float32]
# Share and inverse square width (of the mean squared feature distance) of each Gaussian kernel.
KERNELS = ((0.5, 1.0), (0.5, 0.2), (0.4, 6.0))
# A profile this near to a training line (1 - correlation) is that line.
KNOWN_LINE = 0.02


def kernel(left: Floats, right: Floats) -> Floats:
    """``K [C, L]`` between features ``[C, P]`` and ``[L, P]``."""
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)
    distance = np.maximum(squares - 2 * fixed_product(left, np.ascontiguousarray(right.T)), 0) / left.shape[1]
    out = np.zeros_like(distance)
    for share, scale in KERNELS:
        out += np.float32(share) * np.exp(np.float32(-scale) * distance)
    return out


@dataclass(frozen=True, eq=False)
class MutationEffects:
    """Effects of mutated genes on drugs, in addition to what expression says.

    Attributes:
        gene: ``[E]`` column of the mutation calls. drug: ``[E]`` number of the drug. effect: ``[E]`` ln uM.
        frequency: ``[genes]`` share of training lines in which a gene is mutated.
    """

    gene: NDArray[np.int64]
    drug: NDArray[np.int64]
    effect: Floats
    frequency: Floats

    def of(self, calls: NDArray[np.integer], num_drugs: int) -> Floats:
        """``[C, D]`` from calls ``[C, genes]``: 1, 0, or -1 for unknown, which has no effect."""
        out = np.zeros((len(calls), num_drugs), dtype=np.float32)
        for gene, drug, effect in zip(self.gene, self.drug, self.effect, strict=True):
            call = calls[:, gene]
            out[:, drug] += np.where(call >= 0, (call - self.frequency[gene]) * effect, np.float32(0))
        return out


@dataclass(frozen=True, eq=False)
class ProfileResponses:
    """What a head says of C profiles.

    Attributes:
        noise, distance, nearest: ``[C]``, see `MappedProfiles`.
        deviations: ``[C, D]`` difference of ln IC50 to the mean of each drug over the training lines, without the
            effects of mutations.
    """

    noise: NDArray[np.int64]
    distance: Floats
    nearest: NDArray[np.int64]
    deviations: Floats

    @classmethod
    def empty(cls, num_profiles: int, num_drugs: int) -> ProfileResponses:
        """Arrays to be filled."""
        noise, nearest = np.empty((2, num_profiles), np.int64)
        return cls(noise, np.empty(num_profiles, np.float32), nearest, np.empty((num_profiles, num_drugs), np.float32))


@dataclass(frozen=True, eq=False)
class Widths:
    """Half widths of 90 % intervals, in units of each drug's ``scale``.

    Attributes:
        known_line: of a training line and a drug that it was not measured with.
        new_line: by the noise of the profile, one for each of ``NOISE_LEVELS`` and one for ``SPARSE``.
        new_drug: ln uM, of any drug that is not in training.
        contrast: of a difference between two profiles, as a multiple of the wider of their intervals.
    """

    known_line: float
    new_line: tuple[float, ...]
    new_drug: float
    contrast: float

    def __post_init__(self) -> None:
        if len(self.new_line) != SPARSE + 1:
            raise ValueError(f"the intervals have {len(self.new_line)} noise levels, not {SPARSE + 1}")

    def of(self, responses: ProfileResponses) -> Floats:
        """``[C]``."""
        new = np.array(self.new_line, dtype=np.float32)[responses.noise]
        return np.where(responses.distance < KNOWN_LINE, np.float32(self.known_line), new)


@dataclass(frozen=True, eq=False)
class NewDrugs:
    """Weights by which a drug outside the table borrows from those inside, from the similarity of their fingerprints.

    Attributes:
        drugs: ``[T]`` numbers of the training drugs with a structure.
        inverse: ``[T, T]`` inverse of the regularised kernel of their fingerprints.
    """

    drugs: NDArray[np.int64]
    inverse: Floats

    def weights(self, similarity: Floats, num_drugs: int) -> Floats:
        """``[D]`` from the Tanimoto similarity ``[T]`` to the training drugs."""
        out = np.zeros(num_drugs, dtype=np.float32)
        out[self.drugs] = np.einsum("t,tu->u", similarity, self.inverse, optimize=False)
        return out


@dataclass(frozen=True, eq=False)
class KernelHead:
    """The trained process.

    Attributes:
        profiles: brings profiles into the form of the training lines.
        weights: ``[L, D]`` of the kernel: without and with mutation calls, by setting.
        mutations: effects of mutated genes.
        drug_mean, drug_scale: ``[D]`` mean and residual sd of each drug over training lines, ln uM.
        held_out: ``[L, D]`` deviations of the training lines, each predicted without it; ranks predictions.
        new_drugs: how to predict other drugs.
        widths: of intervals.
    """

    profiles: ProfileMap
    weights: Mapping[str, Floats]
    mutations: MutationEffects
    drug_mean: Floats
    drug_scale: Floats
    held_out: Floats
    new_drugs: NewDrugs
    widths: Widths

    def responses(self, profiles: Floats, setting: str) -> ProfileResponses:
        """ProfileResponses of profiles ``[C, P]`` in log2(TPM + 1), NaN where a gene was not measured.

        ``setting``: whose weights, ``expression`` or ``mutation``.
        """
        mapped = self.profiles.map(profiles)
        deviations = fixed_product(kernel(mapped.features, self.profiles.features), self.weights[setting])
        return ProfileResponses(mapped.noise, mapped.distance, mapped.nearest, deviations)

    def of_new_drug(self, deviations: Floats, weights: Floats) -> Floats:
        """``[C]`` deviation of a new drug: the mean of all drugs, and the weighted rest."""
        mean = deviations.mean(axis=1)
        return mean + ((deviations - mean[:, None]) * weights).sum(axis=1)

    def mean_of_new_drug(self, weights: Floats) -> float:
        """Mean ln IC50 of a new drug over the training lines."""
        mean = self.drug_mean[self.new_drugs.drugs].mean()
        return float(mean + ((self.drug_mean - mean) * weights).sum())

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for a bundle, as `open_kernel_head` reads them."""
        return {
            **self.profiles.arrays(),
            **{f"weights.{name}": value for name, value in self.weights.items()},
            **{f"mutation.{name}": value for name, value in vars(self.mutations).items()},
            "drug.mean": self.drug_mean,
            "drug.scale": self.drug_scale,
            "drug.held_out": self.held_out.astype(np.float16),
            "new_drug.drugs": self.new_drugs.drugs,
            "new_drug.inverse": self.new_drugs.inverse,
        }


def open_kernel_head(tensors: Mapping[str, NDArray[np.generic]], intervals: Mapping[str, object]) -> KernelHead:
    """Open the arrays of a bundle. Raises KeyError, TypeError or ValueError for what does not fit."""
    floats = {name: value.astype(np.float32) for name, value in tensors.items() if value.dtype.kind == "f"}
    profiles = ProfileMap.of(floats)
    num_lines, num_drugs = len(profiles.lines), len(floats["drug.mean"])
    weights = {name: floats[f"weights.{name}"] for name in ("expression", "mutation")}
    for name, value in {**weights, "held_out": floats["drug.held_out"]}.items():
        if value.shape != (num_lines, num_drugs):
            raise ValueError(f"'{name}' has shape {value.shape}, not {(num_lines, num_drugs)}")
        if not np.isfinite(value).all():
            raise ValueError(f"'{name}' has a value that is not finite")
    mutations = MutationEffects(
        tensors["mutation.gene"].astype(np.int64),
        tensors["mutation.drug"].astype(np.int64),
        floats["mutation.effect"],
        floats["mutation.frequency"],
    )
    new_line = intervals["new_line"]
    if not isinstance(new_line, list):
        raise TypeError("the intervals of new lines are no list")
    known_line, new_drug, contrast = (float(str(intervals[key])) for key in ("known_line", "new_drug", "contrast"))
    return KernelHead(
        profiles,
        weights,
        mutations,
        floats["drug.mean"],
        floats["drug.scale"],
        floats["drug.held_out"],
        NewDrugs(tensors["new_drug.drugs"].astype(np.int64), floats["new_drug.inverse"]),
        Widths(known_line, tuple(float(width) for width in new_line), new_drug, contrast),
    )
