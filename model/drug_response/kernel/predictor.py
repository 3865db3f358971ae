"""Predictions of a kernel head for rows of cells and drugs, known and new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.cell_inputs import Panel
from scpalm.model.drug_response.domain import Domain, similarities
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.kernel.head import open_kernel_head
from scpalm.model.drug_response.kernel.profile import SPARSE, log2_tpm
from scpalm.model.drug_response.predictions import Predictions, Relative, TrainingLine, check_optional
from scpalm.model.genes.rows import Rows

Floats = NDArray[np.float32]
_MAX_CACHED_DRUGS = 4096


class KernelPredictor:
    """A kernel head with the panel and drugs of its bundle.

    Args:
        card: the JSON of the bundle's head. tensors: its arrays.
        panel: the genes. table: the drugs.

    Attributes:
        head: the arrays. lines: the training lines. level: probability of the intervals.

    Raises KeyError, TypeError or ValueError if the parts do not fit together.
    """

    def __init__(
        self, card: Mapping[str, Any], tensors: Mapping[str, NDArray[np.generic]], panel: Panel, table: DrugTable
    ) -> None:
        self.head = open_kernel_head(tensors, card["intervals"])
        self.lines = tuple(TrainingLine(str(one["id"]), str(one["type"])) for one in card["lines"])
        self.level = float(card["intervals"]["level"])
        self._num_calls = len(card["mutation_names"])
        self._domain = Domain(float(card["domain"]["cell_distance"]), float(card["domain"]["drug_similarity"]))
        self._panel, self._table = panel, table
        self._column = {drug.pubchem_id: number for number, drug in enumerate(table.drugs)}
        self._cached: OrderedDict[str, Floats] = OrderedDict()
        head = self.head
        wanted = (len(panel), len(self.lines), len(table), self._num_calls)
        found = (head.profiles.lines.shape[1], *head.held_out.shape, len(head.mutations.frequency))
        if wanted != found:
            raise ValueError(f"the card and the table have {wanted} genes, lines, drugs and calls, the arrays {found}")

    def mean_of(self, drug: Drug) -> float:
        """Mean ln IC50 of a drug over the training lines. Raises MoleculeError."""
        if drug.in_training:
            return float(self.head.drug_mean[self._column[drug.pubchem_id]])
        return self.head.mean_of_new_drug(self._weights_of(drug))

    def predict(
        self, panel_rows: Rows, drugs: Sequence[Drug], mutation: NDArray[np.integer] | None = None
    ) -> Predictions:
        """See `DrugResponseSession.predict`."""
        head = self.head
        mapped = head.profiles.map(log2_tpm(self._panel.values(panel_rows)))
        if mutation is not None:
            check_optional("mutation", mutation, (len(panel_rows), self._num_calls), (-1, 1))
        deviations = head.deviations(mapped, mutation)  # [C, drugs of the table]
        shape = len(panel_rows), len(drugs)
        difference, percentile, score, width = (np.empty(shape, np.float32) for _ in range(4))
        of_line = head.widths.of(mapped)
        for column, drug in enumerate(drugs):
            if drug.in_training:
                known = self._column[drug.pubchem_id]
                held_out, difference[:, column] = head.held_out[:, known], deviations[:, known]
                width[:, column] = of_line * head.drug_scale[known]
            else:
                weights = self._weights_of(drug)
                held_out = head.of_new_drug(head.held_out, weights)
                difference[:, column] = head.of_new_drug(deviations, weights)
                width[:, column] = head.widths.new_drug
            lower = np.searchsorted(np.sort(held_out), difference[:, column], side="right")
            percentile[:, column] = lower * (100 / len(held_out))
            score[:, column] = difference[:, column] / max(float(held_out.std()), 1e-6)
        rank = score.argsort(axis=1, kind="stable").argsort(axis=1).astype(np.int32) + 1
        ln_ic50 = difference + np.array([self.mean_of(drug) for drug in drugs], dtype=np.float32)
        distance, sparse = mapped.distance.copy(), mapped.noise == SPARSE
        silent = panel_rows.lengths() == 0
        for values in (ln_ic50, difference, percentile, distance):
            values[silent] = np.nan
        rank[silent] = 0
        similarity = self._domain.drug_similarities(drugs, self._table)
        return Predictions(
            ln_ic50,
            ln_ic50 - width,
            ln_ic50 + width,
            distance,
            ~(distance <= self._domain.cell_distance) | sparse,
            similarity,
            similarity < self._domain.drug_similarity,
            "expression" if mutation is None else "mutation",
            self.level,
            Relative(difference, percentile, rank, mapped.nearest, sparse),
        )

    def _weights_of(self, drug: Drug) -> Floats:
        """``[D]`` weights of the drugs of the table for a new drug, cached."""
        key = drug.graph.canonical
        weights = self._cached.get(key)
        if weights is None:
            trained = [self._table.drugs[number].fingerprint for number in self.head.new_drugs.drugs]
            weights = self.head.new_drugs.weights(similarities(drug, trained), len(self._table))
            self._cached[key] = weights
            # Another thread may evict an entry at the same time; that is harmless.
            while len(self._cached) > _MAX_CACHED_DRUGS:
                self._cached.popitem(last=False)
        return weights
