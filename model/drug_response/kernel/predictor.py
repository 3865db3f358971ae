"""Predictions of a kernel head for rows of cells and drugs, known and new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.cell_inputs import Panel
from scpalm.model.drug_response.domain import Domain, similarities
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.kernel.head import ProfileResponses, open_kernel_head
from scpalm.model.drug_response.kernel.profile import SPARSE, log2_tpm
from scpalm.model.drug_response.predictions import Predictions, Relative, Setting, TrainingLine, check_optional
from scpalm.model.genes.rows import Rows

if TYPE_CHECKING:
    from scpalm.model.drug_response.kernel.device import DeviceKernel

Floats = NDArray[np.float32]
_MAX_CACHED_DRUGS = 4096


@dataclass(frozen=True, eq=False)
class _Lines:
    """Predictions of one drug for the training lines, each made without it: ``ascending [L]``, and their sd."""

    ascending: Floats
    sd: float

    @classmethod
    def of(cls, held_out: Floats) -> _Lines:
        return cls(np.sort(held_out), max(float(held_out.std()), 1e-6))


@dataclass(frozen=True, eq=False)
class _NewDrug:
    """``weights [D]`` of the drugs of the table for a drug outside it, and its predictions for the training lines."""

    weights: Floats
    lines: _Lines


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
        self._known: dict[int, _Lines] = {}
        self._new: OrderedDict[str, _NewDrug] = OrderedDict()
        self._devices: dict[str, DeviceKernel] = {}
        self._opening = Lock()
        head = self.head
        wanted = (len(panel), len(self.lines), len(table), self._num_calls)
        found = (head.profiles.lines.shape[1], *head.held_out.shape, len(head.mutations.frequency))
        if wanted != found:
            raise ValueError(f"the card and the table have {wanted} genes, lines, drugs and calls, the arrays {found}")

    def mean_of(self, drug: Drug) -> float:
        """Mean ln IC50 of a drug over the training lines. Raises MoleculeError."""
        if drug.in_training:
            return float(self.head.drug_mean[self._column[drug.pubchem_id]])
        return self.head.mean_of_new_drug(self._of_new(drug).weights)

    def predict(
        self,
        panel_rows: Rows,
        drugs: Sequence[Drug],
        mutation: NDArray[np.integer] | None = None,
        *,
        device: str = "cpu",
    ) -> Predictions:
        """See `DrugResponseSession.predict`."""
        head = self.head
        setting: Setting = "expression" if mutation is None else "mutation"
        if mutation is not None:
            check_optional("mutation", mutation, (len(panel_rows), self._num_calls), (-1, 1))
        found = self._computed_on(device)(log2_tpm(self._panel.values(panel_rows)), setting)
        deviations = found.deviations  # [C, drugs of the table]
        if mutation is not None:
            deviations = deviations + head.mutations.of(mutation, deviations.shape[1])
        shape = len(panel_rows), len(drugs)
        difference, percentile, score, width = (np.empty(shape, np.float32) for _ in range(4))
        of_line = head.widths.of(found)
        for column, drug in enumerate(drugs):
            if drug.in_training:
                known = self._column[drug.pubchem_id]
                lines, difference[:, column] = self._of_known(known), deviations[:, known]
                width[:, column] = of_line * head.drug_scale[known]
            else:
                new = self._of_new(drug)
                lines, difference[:, column] = new.lines, head.of_new_drug(deviations, new.weights)
                width[:, column] = head.widths.new_drug
            lower = np.searchsorted(lines.ascending, difference[:, column], side="right")
            percentile[:, column] = lower * (100 / len(lines.ascending))
            score[:, column] = difference[:, column] / lines.sd
        rank = score.argsort(axis=1, kind="stable").argsort(axis=1).astype(np.int32) + 1
        ln_ic50 = difference + np.array([self.mean_of(drug) for drug in drugs], dtype=np.float32)
        distance, sparse = found.distance.copy(), found.noise == SPARSE
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
            setting,
            self.level,
            Relative(difference, percentile, rank, found.nearest, sparse),
        )

    def _computed_on(self, device: str) -> Callable[[Floats, str], ProfileResponses]:
        if device == "cpu":
            return self.head.responses
        # Imported here, so that a CPU needs no torch.
        from scpalm.model.drug_response.kernel.device import DeviceKernel

        with self._opening:
            if device not in self._devices:
                self._devices[device] = DeviceKernel.on(self.head, device)
            return self._devices[device].responses

    def _of_known(self, number: int) -> _Lines:
        lines = self._known.get(number)
        if lines is None:
            lines = self._known[number] = _Lines.of(self.head.held_out[:, number])
        return lines

    def _of_new(self, drug: Drug) -> _NewDrug:
        """What is known of a new drug, cached."""
        key = drug.graph.canonical
        found = self._new.get(key)
        if found is None:
            trained = [self._table.drugs[number].fingerprint for number in self.head.new_drugs.drugs]
            weights = self.head.new_drugs.weights(similarities(drug, trained), len(self._table))
            found = _NewDrug(weights, _Lines.of(self.head.of_new_drug(self.head.held_out, weights)))
            self._new[key] = found
            # Another thread may evict an entry at the same time; that is harmless.
            while len(self._new) > _MAX_CACHED_DRUGS:
                self._new.popitem(last=False)
        return found
