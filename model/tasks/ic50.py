"""Drug response: ln IC50 of every cell and drug with an interval, and each cell's distance from the training lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.answer import (
    DOMAIN_WORDS,
    about_inputs,
    described,
    domain_codes,
    how_to_read,
    line_names,
)
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_search import FoundDrug, split_list
from scpalm.model.drug_response.optional_inputs import UNKNOWN, optional_inputs
from scpalm.model.drug_response.session import DrugResponseSession, drug_response_of
from scpalm.model.errors import ParameterError, did_you_mean
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.ic50_answer import Ic50Answer
from scpalm.model.tasks.ic50_options import Ic50Members, Ic50Options, drug_names
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import (
    BoundTask,
    OutputSpec,
    Recipe,
    RecipeError,
    Task,
    TaskContext,
    Values,
)

# Outputs ``[B, drugs]``. Those of the second row need a kernel head, those of the third a contrast.
_VALUES = ("ic50", "ic50_lower", "ic50_upper")
_RELATIVE = ("ic50_relative", "ic50_percentile", "ic50_rank")
_CONTRAST = ("ic50_contrast", "ic50_contrast_lower", "ic50_contrast_upper")
# Outputs ``[B, 1]``.
_DISTANCE, _DOMAIN, _NEAREST = "cell_distance", "domain", "nearest_line"
_KEYS = {_DISTANCE: "X_scpalm_ic50_cell_distance", _DOMAIN: "scpalm_ic50_domain", _NEAREST: "scpalm_ic50_nearest_line"}


@dataclass(frozen=True)
class Contrast:
    """The comparison of all groups with one.

    Attributes:
        group: name of the group. row: its row; a worker needs none.
    """

    group: str
    row: int = -1


@dataclass(frozen=True, eq=False)
class Ic50Request:
    """What was asked for, resolved.

    Attributes:
        drugs: the drugs, one column each, and how each was asked for.
        optional: mutation and methylation in the head's columns, from `optional_inputs`.
        first: position in the request of the first row of ``optional``.
        by: the column whose groups are the rows; "" for cells.
        contrast: the group to compare with, or None.
    """

    drugs: Sequence[FoundDrug]
    optional: Mapping[str, NDArray[np.float32]]
    first: int = 0
    by: str = ""
    contrast: Contrast | None = None


class Ic50(BoundTask):
    """ln IC50 (uM) ``[B, drugs]`` with its interval, relative to training lines, and the distance from these.

    Outputs: ``ic50``, its bounds, with a kernel head ``ic50_relative``, ``ic50_percentile`` and ``nearest_line``, with
    a contrast ``ic50_contrast`` and its bounds; ``cell_distance`` and ``domain``.
    """

    name = "ic50"

    def __init__(self, head: DrugResponseSession, request: Ic50Request) -> None:
        self._head, self._request = head, request
        self._drugs = [found.drug for found in request.drugs]
        self.needs_tokens = head.kernel is None
        self.concludes = request.contrast is not None
        names = [drug.name for drug in self._drugs]
        matrices = (*_VALUES, *(_RELATIVE if head.kernel else ()), *(_CONTRAST if request.contrast else ()))
        outputs = [
            OutputSpec(name, f"X_scpalm_{name}", len(names), np.int32 if name == "ic50_rank" else np.float32, names)
            for name in matrices
        ]
        outputs.append(OutputSpec(_DISTANCE, _KEYS[_DISTANCE], 1, columns=[_DISTANCE]))
        outputs.append(_text_output(_DOMAIN, DOMAIN_WORDS))
        if head.kernel is not None:
            outputs.append(_text_output(_NEAREST, line_names(head)))
        self.outputs = tuple(outputs)

    def select_rows(self, prepared: Prepared) -> Rows:
        return self._head.panel.only(prepared.rows)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        start = first - self._request.first
        rows = slice(start, start + len(encoded))
        mutation, methylation = (self._request.optional.get(name) for name in UNKNOWN)
        found = self._head.predict(
            encoded.h_C if self.needs_tokens else encoded.embedding,
            encoded.rows,
            self._drugs,
            mutation=None if mutation is None else mutation[rows].astype(np.int64),
            methylation=None if methylation is None else methylation[rows],
            # With ONNX Runtime, the device has no PyTorch to compute with.
            device=session.info.device if session.info.runtime == "torch" else "cpu",
        )
        values: dict[str, NDArray[np.generic]] = {
            "ic50": found.ln_ic50,
            "ic50_lower": found.lower,
            "ic50_upper": found.upper,
            _DISTANCE: found.cell_distance[:, None],
            _DOMAIN: domain_codes(found)[:, None],
        }
        if found.relative is not None:
            relative = found.relative
            values |= dict(zip(_RELATIVE, (relative.difference, relative.percentile, relative.rank), strict=True))
            silent = np.isnan(found.cell_distance)
            values[_NEAREST] = np.where(silent, -1, found.relative.nearest)[:, None]
        if self._request.contrast is not None:
            values |= {name: np.zeros_like(found.ln_ic50) for name in _CONTRAST}
        return {
            output.name: cast(Values, values[output.name].astype(output.dtype, copy=False)) for output in self.outputs
        }

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        contrast, kernel = self._request.contrast, self._head.kernel
        assert contrast is not None and kernel is not None
        difference = values["ic50"] - values["ic50"][contrast.row]
        width = (values["ic50_upper"] - values["ic50_lower"]) / 2
        width = np.maximum(width, width[contrast.row]) * np.float32(kernel.head.widths.contrast)
        width[contrast.row] = 0
        found = dict(zip(_CONTRAST, (difference, difference - width, difference + width), strict=True))
        return {name: part.astype(np.float32) for name, part in found.items()}

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        """A row of NaN is valid: the cell expresses no gene of the panel. Any other row must be finite."""
        measured = [part for name, part in values.items() if part.dtype.kind == "f" and name not in _CONTRAST]
        finite = np.column_stack([np.isfinite(part) for part in measured])
        missing = np.column_stack([np.isnan(part) for part in measured])
        bad = ~(finite.all(axis=1) | missing.all(axis=1))
        return int(bad.argmax()) if bad.any() else None

    def metadata(self) -> dict[str, object]:
        head, request = self._head, self._request
        similarity = head.drug_similarities(self._drugs)
        outside = similarity < head.domain.drug_similarity
        setting = head.setting_of(
            mutation="mutation" in request.optional, methylation="methylation" in request.optional
        )
        drugs = [
            described(head, found, float(score), outside=bool(far))
            for found, score, far in zip(request.drugs, similarity, outside, strict=True)
        ]
        about = how_to_read(head, setting) | about_inputs(head, setting, list(request.optional)) | {"drugs": drugs}
        if request.by:
            about["by"] = request.by
        if request.contrast is not None:
            about["contrast"] = {"with": request.contrast.group, "level": head.level_of(setting)}
        return {"drug_response": about}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        # A known drug is sent as its position in the bundle's table, which the worker has too.
        position = {id(drug): number for number, drug in enumerate(self._head.drugs.drugs)}
        settings: dict[str, object] = {"drugs": [position.get(id(drug), drug.smiles) for drug in self._drugs]}
        if self._request.contrast is not None:
            settings["contrast"] = self._request.contrast.group
        start = first - self._request.first
        optional = {name: values[start : start + num_rows] for name, values in self._request.optional.items()}
        return Recipe(first, settings, optional)


def _text_output(name: str, texts: Sequence[str]) -> OutputSpec:
    return OutputSpec(name, _KEYS[name], 1, np.int32, columns=(name,), placement="obs", categories=texts)


@register
class Ic50Task(Task[Ic50Options]):
    """Drug response."""

    name = "ic50"
    summary = (
        "Predicted response of every cell (or bulk profile) to every drug. For research use, not for treatment. "
        "Mutation and methylation are optional: members of a JSON body, or dataframes `mutation` and `methylation` "
        "in `obsm` of an h5ad file. `by` sums the cells of each group, which is how single cells should be asked about."
    )
    result = (
        "`values`: ln IC50 (uM), one row per cell or group and one column per drug; `ic50_lower`, `ic50_upper`: the "
        "interval; `ic50_relative`, `ic50_percentile`, `ic50_rank`: relative to the training cell lines; "
        "`ic50_contrast`: to the group named by "
        "`contrast`; `cell_distance`, `domain`, `nearest_line`: how near the cell is to the training "
        "lines; `drug_response`: units, drugs, inputs used and terms of use."
    )
    options = Ic50Options
    answer = Ic50Answer
    members = Ic50Members
    tensors: ClassVar[Mapping[str, str]] = {name: name for name in (*_VALUES, *_RELATIVE, *_CONTRAST, *_KEYS)}
    alone = True
    binds_quickly = False

    def bind(self, options: Ic50Options, context: TaskContext) -> BoundTask:
        head = drug_response_of(context.bundle)
        found = find_drugs(head, [*options.drugs, *drug_names(context.members)])
        optional = optional_inputs(head, context.members, context.num_cells)
        contrast = _contrast(options, context, head)
        return Ic50(head, Ic50Request(found, optional, by=options.by, contrast=contrast))

    def sum_by(self, options: Ic50Options) -> str:
        return options.by

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        head = drug_response_of(bundle)
        known = head.drugs.drugs
        drugs: list[Drug] = []
        for drug in recipe.settings["drugs"]:
            if isinstance(drug, int) and not 0 <= drug < len(known):
                raise RecipeError("The position of a drug is outside the model's drug table.")
            drugs.append(known[drug] if isinstance(drug, int) else _new_drug(str(drug)))
        optional = {name: recipe.arrays[name] for name in UNKNOWN if name in recipe.arrays}
        group = recipe.settings.get("contrast")
        contrast = None if group is None else Contrast(str(group))
        found = [FoundDrug(drug, drug.name) for drug in drugs]
        return Ic50(head, Ic50Request(found, optional, recipe.first, contrast=contrast))


def _contrast(options: Ic50Options, context: TaskContext, head: DrugResponseSession) -> Contrast | None:
    if not options.contrast:
        return None
    if not options.by or head.kernel is None:
        reason = "needs 'by'" if not options.by else "is not supported by this model"
        raise ParameterError(f"'contrast' {reason}: it compares groups of cells.", field="contrast")
    names = context.obs[options.by].names
    if options.contrast not in names:
        raise ParameterError(
            f"obs['{options.by}'] has no group '{options.contrast[:100]}'. "
            f"{did_you_mean(options.contrast, names)}Choose from {', '.join(names[:20])}.",
            field="contrast",
        )
    return Contrast(options.contrast, names.index(options.contrast))


@lru_cache(4096)
def _new_drug(smiles: str) -> Drug:
    """A drug that is not in the table. Cached, so that its graph is built once and not for every batch."""
    return Drug(smiles, smiles)


def find_drugs(head: DrugResponseSession, asked: Sequence[str]) -> list[FoundDrug]:
    """The requested drugs, or all training drugs if none is named. Raises InputError for an unknown drug."""
    return head.drugs.search([drug for text in asked for drug in split_list(text, head.drugs.known)])
