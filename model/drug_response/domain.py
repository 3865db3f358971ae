"""Distance from the training data: of cells by their features, of drugs by their structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable

if TYPE_CHECKING:
    from rdkit.DataStructs import ExplicitBitVect

if TYPE_CHECKING:
    from rdkit.DataStructs import ExplicitBitVect


@dataclass(frozen=True)
class Domain:
    """Bounds of the training domain.

    Attributes:
        cell_distance: largest distance of a cell, see `Predictions.cell_distance`.
        drug_similarity: smallest Tanimoto similarity (Morgan fingerprints, radius 2) to the nearest training drug.
    """

    cell_distance: float
    drug_similarity: float

    @staticmethod
    def cell_distances(features: NDArray[np.float32], known: NDArray[np.integer]) -> NDArray[np.float32]:
        """``[B]`` root mean square of the z-scores ``[B, width]``; ``known [B]`` counts the features not missing."""
        return np.sqrt(np.square(features, dtype=np.float64).sum(axis=1) / known).astype(np.float32)

    def drug_similarities(self, drugs: Sequence[Drug], table: DrugTable) -> NDArray[np.float32]:
        """``[D]`` similarity to the nearest training drug of the table; 1 for a training drug."""
        return np.array([1.0 if drug.in_training else nearest(drug, table) for drug in drugs], dtype=np.float32)


def similarities(drug: Drug, fingerprints: Sequence[ExplicitBitVect]) -> NDArray[np.float32]:
    """Tanimoto similarity of ``drug`` to each fingerprint. Raises MoleculeError."""
    from rdkit.DataStructs import BulkTanimotoSimilarity

    return np.array(BulkTanimotoSimilarity(drug.fingerprint, list(fingerprints)), dtype=np.float32)


def nearest(drug: Drug, table: DrugTable, *, leave_out: Drug | None = None) -> float:
    """Similarity of ``drug`` to the most similar training drug of ``table``; 0 if the table has none."""
    from rdkit.DataStructs import BulkTanimotoSimilarity

    others = [other.fingerprint for other in table.drugs if other.in_training and other is not leave_out]
    return max(BulkTanimotoSimilarity(drug.fingerprint, others), default=0.0)
