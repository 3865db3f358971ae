"""Drugs outside the table: weights of the drugs inside it, from the similarity of their fingerprints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.drugs.drug import Drug

Floats = NDArray[np.float32]
RIDGE = 0.3  # best of 0.3, 1 and 3 by folds over drugs


def fingerprint_kernel(drugs: Sequence[Drug]) -> Floats:
    """``[T, T]`` Tanimoto similarity of the drugs. Raises MoleculeError for a drug without a usable structure."""
    from rdkit.DataStructs import BulkTanimotoSimilarity

    prints = [drug.fingerprint for drug in drugs]
    return np.array([BulkTanimotoSimilarity(one, prints) for one in prints], dtype=np.float32)


def invert(similarity: Floats) -> Floats:
    """Inverse of the regularised kernel ``[T, T]``."""
    regular = similarity.astype(np.float64) + RIDGE * np.eye(len(similarity))
    found: Floats = np.linalg.inv(regular).astype(np.float32)
    return found


def predict_new(drug_mean: Floats, deviations: Floats, weights: Floats) -> Floats:
    """``[C, new]`` ln IC50, as `KernelHead.of_new_drug` computes it, for several drugs.

    Args:
        drug_mean: ``[T]`` of the training drugs. deviations: ``[C, T]`` of cells from them.
        weights: ``[new, T]``.
    """
    mean, line = drug_mean.mean(), deviations.mean(axis=1, keepdims=True)
    return mean + weights @ (drug_mean - mean) + line + (deviations - line) @ weights.T
