"""The drug response head of a bundle: rows and h_C -> ln IC50 with interval and domain. On a CPU it needs no torch.

A head is of one of two kinds: folded networks that read h_C and genes (cards of version 1 and 2), or a kernel head
that reads mapped profiles of the genes (version 3).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import get_args
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import CellInputs, Panel, Standardizer, mutation_features
from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.domain import Domain
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.folded import FoldedMembers
from scpalm.model.drug_response.kernel.predictor import KernelPredictor
from scpalm.model.drug_response.predictions import Predictions, Setting, check_optional
from scpalm.model.errors import BundleError, InputError, MissingPartError
from scpalm.model.genes.rows import Rows

WEIGHTS_FILE, CARD_FILE, TABLE_FILE = "drug_response.safetensors", "drug_response.json", "drugs.parquet"
UNITS = "ln IC50 (uM)"
CARD_VERSION = 2  # of networks; in version 1 every setting stores all its tensors
KERNEL_CARD_VERSION = 3
_MAX_CACHED_DRUGS = 4096

Floats = NDArray[np.float32]


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
        kernel: predicts with a kernel head; None if the head is made of networks.

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
            self.kernel = (
                KernelPredictor(card, tensors, self.panel, self.drugs)
                if card["version"] == KERNEL_CARD_VERSION
                else None
            )
            floats = {name: array.astype(np.float32) for name, array in tensors.items()}
            self._heads = {} if self.kernel else self._open(card["settings"], floats)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{card_file} and {WEIGHTS_FILE} do not fit together ({error}). Export the head again."
            ) from error
        if self.kernel is None and "expression" not in self._heads:
            raise BundleError(f"{card_file} has no head for expression alone. Export the head again.")
        self._cached_units: OrderedDict[tuple[str, bool, str], Floats] = OrderedDict()

    @property
    def domain(self) -> Domain:
        """The bounds beyond which a cell or a drug counts as outside the training domain."""
        return self._domain

    def drug_similarities(self, drugs: Sequence[Drug]) -> Floats:
        """``[D]`` similarity of each drug to the nearest training drug. Raises MoleculeError."""
        return self._domain.drug_similarities(drugs, self.drugs)

    def level_of(self, setting: Setting) -> float:
        """Probability of the interval of a setting. Raises InputError if this bundle has no head for it."""
        return self.kernel.level if self.kernel else self._require_head(setting).level

    @property
    def settings(self) -> tuple[str, ...]:
        """The available settings, of ``expression``, ``mutation`` and ``methylation`` (which needs mutation too)."""
        return ("expression", "mutation") if self.kernel else tuple(self._heads)

    def setting_of(self, *, mutation: bool, methylation: bool) -> Setting:
        """The inputs that are used when these are sent. A kernel head does not read methylation."""
        return "methylation" if methylation and self.kernel is None else "mutation" if mutation else "expression"

    def predict(
        self,
        embedding: Floats,
        panel_rows: Rows,
        drugs: Sequence[Drug],
        *,
        mutation: NDArray[np.integer] | None = None,
        methylation: Floats | None = None,
        device: str = "cpu",
    ) -> Predictions:
        """Predict ln IC50 for every cell and drug. A prediction does not depend on the other cells and drugs.

        Args:
            embedding: ``[C, width]`` h_C of ``panel_rows``.
            panel_rows: the cells, from ``panel.only``.
            drugs: the drugs.
            mutation: ``[C, len(mutation_names)]`` 0, 1 or -1 (unknown).
            methylation: ``[C, len(methylation_names)]`` fraction in [0, 1], NaN where unknown; needs mutation too.
            device: where a kernel head computes: ``cpu`` with NumPy, or ``cuda:n`` with PyTorch.

        Raises InputError for optional inputs of the wrong shape or value, or for which this bundle has no head;
        MoleculeError for a drug that cannot be used; FloatingPointError for an embedding that is not finite;
        DeviceLostError.
        """
        if not np.isfinite(embedding).all():  # features may be missing (NaN), but h_C may not
            raise FloatingPointError("h_C is not finite")
        setting = self._setting(mutation, methylation)
        if self.kernel is not None:
            return self.kernel.predict(panel_rows, drugs, mutation, device=device)
        head = self._heads[setting]
        raw = head.cell_inputs.features(embedding, panel_rows)
        branches = [raw]
        if mutation is not None:
            check_optional("mutation", mutation, (len(raw), len(self.mutation_names)), (-1, 1))
            branches.append(head.standards["mutation"].apply(mutation_features(mutation)))
        if methylation is not None:
            check_optional("methylation", methylation, (len(raw), len(self.methylation_names)), (0, 1))
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
            self._cached_units[key] = units
            # Another thread may evict an entry at the same time; that is harmless.
            while len(self._cached_units) > _MAX_CACHED_DRUGS:
                self._cached_units.popitem(last=False)
        return units

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
