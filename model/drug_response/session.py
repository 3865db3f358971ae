"""The drug response head of a bundle: rows and h_C -> ln IC50 with interval and domain. NumPy only, no torch.

A head is of one of two kinds: folded networks that read h_C and genes (cards of version 1 and 2), or a kernel head
that reads mapped profiles of the genes (version 3).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import CellInputs, Panel, Standardizer, mutation_features
from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.domain import Domain, similarities
from scpalm.model.drug_response.drug import Drug
from scpalm.model.drug_response.drug_table import DrugTable
from scpalm.model.drug_response.folded import FoldedMembers
from scpalm.model.drug_response.kernel_head import KernelHead, open_kernel_head
from scpalm.model.drug_response.profile import SPARSE, log2_tpm
from scpalm.model.errors import BundleError, InputError, MissingPartError
from scpalm.model.genes.rows import Rows

WEIGHTS_FILE, CARD_FILE, TABLE_FILE = "drug_response.safetensors", "drug_response.json", "drugs.parquet"
UNITS = "ln IC50 (uM)"
CARD_VERSION = 2  # of networks; in version 1 every setting stores all its tensors
KERNEL_CARD_VERSION = 3
Setting = Literal["expression", "mutation", "methylation"]
_MAX_CACHED_DRUGS = 4096

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for C cells and D drugs: ln IC50, with IC50 in uM.

    A cell that expresses no gene of the panel has NaN in all its values.

    Attributes:
        ln_ic50: ``[C, D]`` mean of the ensemble.
        lower, upper: ``[C, D]`` interval that contains the measured value with probability ``level``, for pairs like
            the training pairs. For a new drug it is calibrated on drugs that were held out.
        cell_distance: ``[C]`` of networks, the root mean square z-score of the cell's features; of a kernel head, 1
            minus the correlation with the nearest training line.
        cell_outside: ``[C]`` whether that is beyond the training lines.
        drug_similarity: ``[D]`` similarity to the nearest training drug, 0 to 1.
        drug_outside: ``[D]`` whether the drug is outside the training domain.
        setting: the inputs that were used.
        level: probability of the interval.
        relative: what only a kernel head gives; see `Relative`.
    """

    ln_ic50: Floats
    lower: Floats
    upper: Floats
    cell_distance: Floats
    cell_outside: NDArray[np.bool_]
    drug_similarity: Floats
    drug_outside: NDArray[np.bool_]
    setting: Setting
    level: float
    relative: Relative | None = None


@dataclass(frozen=True, eq=False)
class Relative:
    """Predictions relative to the training lines.

    Attributes:
        difference: ``[C, D]`` to the mean of the drug over the training lines, ln uM.
        percentile: ``[C, D]`` share of the training lines that are predicted at least as sensitive, 0 to 100.
        nearest: ``[C]`` number of the nearest training line in ``DrugResponseSession.lines``.
        sparse: ``[C]`` whether the profile has too few counts for its genes, as single cells have.
    """

    difference: Floats
    percentile: Floats
    nearest: NDArray[np.int64]
    sparse: NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingLine:
    """A cell line of the training data: DepMap id and TCGA type."""

    id: str
    type: str


@dataclass(frozen=True, eq=False)
class _Head:
    members: FoldedMembers
    standards: dict[str, Standardizer]
    cell_inputs: CellInputs
    spread: float
    quantile: float
    new_drug: float
    level: float


_opened: WeakKeyDictionary[Bundle, DrugResponseSession] = WeakKeyDictionary()
_opening = Lock()


def drug_response_of(bundle: Bundle) -> DrugResponseSession:
    """The drug response head of a bundle, opened once and released with the bundle.

    Raises MissingPartError if the bundle has no head, BundleError if the head is damaged.
    """
    if CARD_FILE not in bundle.manifest["files"]:
        raise MissingPartError(
            f"The model {bundle.name} {bundle.version} has no drug response head ({CARD_FILE}). "
            "Add one with `scpalm-train drug-response`."
        )
    with _opening:
        head = _opened.get(bundle)
        if head is None:
            head = _opened[bundle] = DrugResponseSession(bundle)
        return head


class DrugResponseSession:
    """The drug response head of a bundle.

    Attributes:
        drugs: the known drugs.
        panel: the genes it reads; call ``panel.only(rows)`` before encoding the rows.
        mutation_names, methylation_names: names of the columns of the optional inputs, in order.
        terms: terms of use of the training data, to be stated with every response.
        tissues: TCGA types of the training lines.
        kernel: the kernel head, or None if the head is made of networks.
        lines: the training lines of a kernel head.

    Raises BundleError if the bundle has no head or its parts do not fit together.
    """

    def __init__(self, bundle: Bundle) -> None:
        tensors_file, card_file = bundle.file(WEIGHTS_FILE), bundle.file(CARD_FILE)
        self.drugs = DrugTable.load(bundle.file(TABLE_FILE))
        try:
            card = json.loads(card_file.read_text(encoding="utf-8"))
            tensors = load_file(tensors_file)
            if card["version"] not in range(1, KERNEL_CARD_VERSION + 1):
                raise ValueError(
                    f"version {card['version']}, but this release reads versions up to {KERNEL_CARD_VERSION}"
                )
            self.panel = Panel(card["genes"], bundle.vocabulary)
            self.mutation_names = tuple(str(name) for name in card["mutation_names"])
            self.methylation_names = tuple(str(name) for name in card["methylation_names"])
            self.terms, self.tissues = str(card["terms"]), tuple(str(name) for name in card["tissues"])
            self._domain = Domain(float(card["domain"]["cell_distance"]), float(card["domain"]["drug_similarity"]))
            self._embedding_width = int(bundle.manifest["network"]["width"])
            self.kernel = self._open_kernel(card, tensors) if card["version"] == KERNEL_CARD_VERSION else None
            self.lines = tuple(TrainingLine(str(one["id"]), str(one["type"])) for one in card.get("lines", ()))
            self._kernel_level = float(card["intervals"]["level"]) if self.kernel else 0.0
            floats = {name: array.astype(np.float32) for name, array in tensors.items()}
            self._heads = {} if self.kernel else self._open(card["settings"], floats)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{card_file} and {WEIGHTS_FILE} do not fit together ({error}). Export the head again."
            ) from error
        if self.kernel is None and "expression" not in self._heads:
            raise BundleError(f"{card_file} has no head for expression alone. Export the head again.")
        self._cached_units: OrderedDict[tuple[str, bool, str], Floats] = OrderedDict()
        self._column = {drug.pubchem_id: number for number, drug in enumerate(self.drugs.drugs)}

    @property
    def domain(self) -> Domain:
        """The bounds beyond which a cell or a drug counts as outside the training domain."""
        return self._domain

    def drug_similarities(self, drugs: Sequence[Drug]) -> Floats:
        """``[D]`` similarity of each drug to the nearest training drug. Raises MoleculeError."""
        return self._domain.drug_similarities(drugs, self.drugs)

    def level_of(self, setting: Setting) -> float:
        """Probability of the interval of a setting. Raises InputError if this bundle has no head for it."""
        return self._kernel_level if self.kernel else self._require_head(setting).level

    @property
    def settings(self) -> tuple[str, ...]:
        """The available settings, of ``expression``, ``mutation`` and ``methylation`` (which needs mutation too)."""
        return ("expression", "mutation") if self.kernel else tuple(self._heads)

    def setting_of(self, *, mutation: bool, methylation: bool) -> Setting:
        """The inputs that are used when these are sent. A kernel head does not read methylation."""
        return "methylation" if methylation and self.kernel is None else "mutation" if mutation else "expression"

    def mean_of(self, drug: Drug) -> float | None:
        """Mean ln IC50 of a drug over the training lines; None if the head is made of networks. Raises MoleculeError."""
        if self.kernel is None:
            return None
        if drug.in_training:
            return float(self.kernel.drug_mean[self._column[drug.pubchem_id]])
        return self.kernel.mean_of_new_drug(self._new_drug_weights(self.kernel, drug))

    def predict(
        self,
        embedding: Floats,
        panel_rows: Rows,
        drugs: Sequence[Drug],
        *,
        mutation: NDArray[np.integer] | None = None,
        methylation: Floats | None = None,
    ) -> Predictions:
        """Predict ln IC50 for every cell and drug. A prediction does not depend on the other cells and drugs.

        Args:
            embedding: ``[C, width]`` h_C of ``panel_rows``.
            panel_rows: the cells, from ``panel.only``.
            drugs: the drugs.
            mutation: ``[C, len(mutation_names)]`` 0, 1 or -1 (unknown).
            methylation: ``[C, len(methylation_names)]`` fraction in [0, 1], NaN where unknown; needs mutation too.

        Raises InputError for optional inputs of the wrong shape or value, or for which this bundle has no head;
        MoleculeError for a drug that cannot be used; FloatingPointError for an embedding that is not finite.
        """
        if not np.isfinite(embedding).all():  # features may be missing (NaN), but h_C may not
            raise FloatingPointError("h_C is not finite")
        setting = self._setting(mutation, methylation)
        if self.kernel is not None:
            return self._predict_kernel(self.kernel, panel_rows, drugs, mutation)
        head = self._heads[setting]
        raw = head.cell_inputs.features(embedding, panel_rows)
        branches = [raw]
        if mutation is not None:
            _check("mutation", mutation, (len(raw), len(self.mutation_names)), (-1, 1))
            branches.append(head.standards["mutation"].apply(mutation_features(mutation)))
        if methylation is not None:
            _check("methylation", methylation, (len(raw), len(self.methylation_names)), (0, 1))
            branches.append(head.standards["methylation"].apply(methylation))
        drug_units = np.stack([self._drug_units(setting, drug) for drug in drugs], axis=1)  # [M, D, units]
        members = head.members.pairs(head.members.cell_units(branches), drug_units)  # [M, C, D]
        mean = members.mean(axis=0)
        width = head.quantile * np.sqrt(members.var(axis=0) + head.spread**2)
        width[:, [not drug.in_training for drug in drugs]] = head.new_drug
        distance = self._domain.cell_distances(raw, head.cell_inputs.num_known(panel_rows, embedding.shape[1]))
        silent = panel_rows.lengths() == 0
        mean[silent] = distance[silent] = np.nan
        similarity = self._domain.drug_similarities(drugs, self.drugs)
        return Predictions(
            mean,
            mean - width,
            mean + width,
            distance,
            ~(distance <= self._domain.cell_distance),
            similarity,
            similarity < self._domain.drug_similarity,
            setting,
            head.level,
        )

    def _predict_kernel(
        self, head: KernelHead, panel_rows: Rows, drugs: Sequence[Drug], mutation: NDArray[np.integer] | None
    ) -> Predictions:
        mapped = head.profiles.map(log2_tpm(self.panel.values(panel_rows)))
        if mutation is not None:
            _check("mutation", mutation, (len(panel_rows), len(self.mutation_names)), (-1, 1))
        deviations = head.deviations(mapped, mutation)  # [C, drugs of the table]
        shape = len(panel_rows), len(drugs)
        difference, percentile, width = (np.empty(shape, np.float32) for _ in range(3))
        mean = np.empty(len(drugs), np.float32)
        of_line = head.widths.of(mapped)
        for column, drug in enumerate(drugs):
            known = self._column[drug.pubchem_id] if drug.in_training else None
            if known is not None:
                held_out, mean[column] = head.held_out[:, known], head.drug_mean[known]
                difference[:, column] = deviations[:, known]
                width[:, column] = of_line * head.drug_scale[known]
            else:
                weights = self._new_drug_weights(head, drug)
                held_out, mean[column] = head.of_new_drug(head.held_out, weights), head.mean_of_new_drug(weights)
                difference[:, column] = head.of_new_drug(deviations, weights)
                width[:, column] = head.widths.new_drug
            rank = np.searchsorted(np.sort(held_out), difference[:, column], side="right")
            percentile[:, column] = rank * (100 / len(held_out))
        ln_ic50, distance = difference + mean, mapped.distance.copy()
        silent = panel_rows.lengths() == 0
        for values in (ln_ic50, difference, percentile, distance):
            values[silent] = np.nan
        similarity = self._domain.drug_similarities(drugs, self.drugs)
        return Predictions(
            ln_ic50,
            ln_ic50 - width,
            ln_ic50 + width,
            distance,
            ~(distance <= self._domain.cell_distance) | (mapped.noise == SPARSE),
            similarity,
            similarity < self._domain.drug_similarity,
            "expression" if mutation is None else "mutation",
            self._kernel_level,
            Relative(difference, percentile, mapped.nearest, mapped.noise == SPARSE),
        )

    def _new_drug_weights(self, head: KernelHead, drug: Drug) -> Floats:
        """``[D]`` weights of the drugs of the table, cached."""
        key = ("kernel", False, drug.graph.canonical)
        if (weights := self._cached_units.get(key)) is None:
            trained = [self.drugs.drugs[number].fingerprint for number in head.new_drugs.drugs]
            similarity = similarities(drug, trained)
            weights = head.new_drugs.weights(similarity, len(self.drugs))
            self._remember(key, weights)
        return weights

    def _open_kernel(self, card: dict[str, Any], tensors: dict[str, NDArray[np.generic]]) -> KernelHead:
        head = open_kernel_head(tensors, card["intervals"])
        shapes = {"genes": len(self.panel), "lines": len(card["lines"]), "drugs": len(self.drugs)}
        found = {
            "genes": head.profiles.lines.shape[1],
            "lines": len(head.profiles.lines),
            "drugs": len(head.drug_mean),
        }
        if shapes != found:
            raise ValueError(f"the card and the table have {shapes}, the arrays {found}")
        return head

    def _setting(self, mutation: object, methylation: object) -> Setting:
        if methylation is not None and mutation is None:
            raise InputError(
                "mutation-missing",
                "Methylation was sent without mutation, but the head needs both.",
                hint="Send both (-1 for unknown calls), or neither.",
                field="mutation",
            )
        setting: Setting = "expression" if mutation is None else "mutation" if methylation is None else "methylation"
        if self.kernel is None:
            self._require_head(setting)
        return setting

    def _require_head(self, setting: Setting) -> _Head:
        if setting not in self._heads:
            raise InputError(
                "setting-missing",
                f"This model has no drug response head for {setting}.",
                hint=f"Leave it out; the model has heads for {', '.join(self._heads)}.",
                field=setting,
            )
        return self._heads[setting]

    def _drug_units(self, setting: str, drug: Drug) -> Floats:
        """``[M, units]``, cached."""
        key = (setting, drug.in_training, drug.graph.canonical)
        units = self._cached_units.get(key)
        if units is None:
            units = self._heads[setting].members.drug_units(drug.graph, new=not drug.in_training)
            self._remember(key, units)
        return units

    def _remember(self, key: tuple[str, bool, str], units: Floats) -> None:
        self._cached_units[key] = units
        # Another thread may evict an entry at the same time; that is harmless.
        while len(self._cached_units) > _MAX_CACHED_DRUGS:
            self._cached_units.popitem(last=False)

    def _open(self, entries: dict[str, dict[str, object]], tensors: dict[str, Floats]) -> dict[str, _Head]:
        """Open the settings in order. A setting stores only the tensors that differ from the previous setting."""
        heads: dict[str, _Head] = {}
        own: dict[str, Floats] = {}
        for name in (setting for setting in get_args(Setting) if setting in entries):
            prefix = f"{name}."
            own = own | {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            heads[name] = self._head(name, entries[name], own)
        return heads

    def _head(self, name: str, entry: dict[str, object], own: dict[str, Floats]) -> _Head:
        config = DrugResponseConfig.from_dict(entry["config"])  # type: ignore[arg-type]
        members = FoldedMembers(config, own)
        members.check()
        standards = {
            branch: Standardizer(own[f"standard.{branch}.mean"], own[f"standard.{branch}.sd"])
            for branch in config.branches
        }
        inputs = CellInputs(tuple(entry["inputs"]), self.panel, standards["cell"])  # type: ignore[arg-type]
        widths = {
            "cell": sum(len(self.panel) if part == "genes" else self._embedding_width for part in inputs.parts),
            "mutation": 2 * len(self.mutation_names),
            "methylation": len(self.methylation_names),
        }
        for branch in config.branches:
            if not len(standards[branch].mean) == len(standards[branch].sd) == widths[branch]:
                found = len(standards[branch].mean)
                raise ValueError(f"'{branch}' of {name} has {found} features, not {widths[branch]}")
        interval: dict[str, float] = entry["interval"]  # type: ignore[assignment]
        widths_of = (float(interval[key]) for key in ("spread", "quantile", "new_drug", "level"))
        return _Head(members, standards, inputs, *widths_of)


def _check(field: str, values: NDArray[np.generic], shape: tuple[int, int], bounds: tuple[int, int]) -> None:
    if values.shape != shape:
        raise InputError(
            "bad-shape",
            f"'{field}' has shape {values.shape}, not {shape} (cells, columns).",
            hint="Send one row per cell and one column per name.",
            field=field,
        )
    numbers = values.astype(np.float64)
    wrong = (numbers < bounds[0]) | (numbers > bounds[1]) | np.isinf(numbers)
    if field == "mutation":
        wrong |= numbers != np.rint(numbers)
    if wrong.any():
        row, column = (int(i[0]) for i in np.nonzero(wrong))
        allowed = "0, 1 or -1 (unknown)" if field == "mutation" else "a fraction from 0 to 1, or missing"
        raise InputError(
            "bad-value",
            f"'{field}' is {values[row, column]} in cell number {row + 1}, column {column + 1}; it must be {allowed}.",
            hint="Correct it, or leave it out.",
            field=field,
        )
