"""Drug response as tasks: ln IC50 of every cell with every drug, its interval, and how far a cell is from training.

They are one prediction and are asked for together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.app.errors import InvalidParameterError, UnsupportedTaskError
from scpalm.app.tasks.task import Task, Values
from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drug_table import Drug
from scpalm.model.drug_response.session import (
    CARD_FILE,
    TABLE_FILE,
    UNITS,
    WEIGHTS_FILE,
    DrugResponseSession,
    Predictions,
    Setting,
)
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session

# Of which optional input the head reads what, and what a value that is not known is sent to it as.
OPTIONAL: dict[str, float] = {"mutation": -1.0, "methylation": float("nan")}

Column = Literal["ln_ic50", "lower", "upper", "cell_distance"]


_opened: dict[str, DrugResponseSession] = {}
_opening = Lock()


def drug_response_of(bundle: Bundle) -> DrugResponseSession:
    """The head of a bundle, opened once. Raises UnsupportedTaskError for none, BundleError for a damaged one."""
    if CARD_FILE not in bundle.manifest["files"]:
        raise UnsupportedTaskError(
            f"The model {bundle.name} {bundle.version} has no drug response head ({CARD_FILE}). "
            "Serve a bundle that `scpalm-train drug-response` added one to."
        )
    content = "".join(bundle.manifest["files"][name]["sha256"] for name in (CARD_FILE, WEIGHTS_FILE, TABLE_FILE))
    with _opening:
        if content not in _opened:
            _opened[content] = DrugResponseSession(bundle)
        return _opened[content]


def find_drugs(head: DrugResponseSession, asked: Sequence[str]) -> list[Drug]:
    """The drugs asked for, all known ones when none is. A name may be a comma-separated list of names.

    Raises InputError for an unknown drug.
    """
    names: list[str] = []
    for text in asked:
        # No SMILES has a comma, and a drug of the table may have one in its name.
        names += [text] if head.drugs.known(text) else [part for part in text.split(",") if part.strip()] or [text]
    return head.drugs.resolve(names)


class Predictor:
    """Predictions of the cells at hand: all columns of one batch come from one of them.

    Attributes:
        head, drugs: whose answers. optional: see `optional_inputs`; ``first`` is the cell of their first row.
    """

    def __init__(
        self,
        head: DrugResponseSession,
        drugs: Sequence[Drug],
        optional: Mapping[str, NDArray[np.float32]],
        first: int = 0,
    ) -> None:
        self.head = head
        self.drugs = drugs
        self.optional = optional
        self.first = first
        self._last: tuple[Encoded, Predictions] | None = None

    def predict(self, cells: Encoded, first: int) -> Predictions:
        if self._last is None or self._last[0] is not cells:
            assert cells.rows is not None
            rows = slice(first - self.first, first - self.first + len(cells))
            mutation, methylation = (self.optional.get(name) for name in OPTIONAL)
            made = self.head.predict(
                cells.embedding,
                cells.rows,
                self.drugs,
                mutation=None if mutation is None else mutation[rows].astype(np.int64),
                methylation=None if methylation is None else methylation[rows],
            )
            self._last = cells, made
        return self._last[1]


class DrugResponse(Task):
    """One kind of number of a prediction: ``[B, drugs]``, or ``[B, 1]`` for the distance of a cell."""

    dtype = np.float32
    name: str  # type: ignore[misc]  # one class, several results
    _KEYS: ClassVar[dict[Column, tuple[str, str]]] = {
        "ln_ic50": ("ic50", "X_scpalm_ic50"),
        "lower": ("ic50_lower", "X_scpalm_ic50_lower"),
        "upper": ("ic50_upper", "X_scpalm_ic50_upper"),
        "cell_distance": ("cell_distance", "X_scpalm_ic50_cell_distance"),
    }

    def __init__(self, predictor: Predictor, column: Column, about: object = None) -> None:
        self.name, self.key = self._KEYS[column]
        self.counted = column == "ln_ic50"
        self.columns = ["cell_distance"] if column == "cell_distance" else [drug.name for drug in predictor.drugs]
        self.width = len(self.columns)
        self.predictor, self.column = predictor, column
        self._about = about

    def reads(self, prepared: Prepared) -> Rows:
        return self.predictor.head.panel.only(prepared.rows)

    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        values: NDArray[np.float32] = getattr(self.predictor.predict(cells, first), self.column)
        return values.reshape(len(cells), self.width).astype(np.float32, copy=False)

    def whole(self, values: Values) -> bool:
        """A cell without a gene of the panel has no answer: a row of NaN."""
        answered = ~np.isnan(values).all(axis=1)
        return bool(np.isfinite(values[answered]).all())

    def about(self) -> dict[str, object]:
        return {"drug_response": self._about} if self.counted else {}


def drug_response_tasks(
    head: DrugResponseSession, drugs: Sequence[Drug], optional: Mapping[str, NDArray[np.float32]]
) -> tuple[Task, ...]:
    """The tasks of one request. ``optional``: see `optional_inputs`."""
    similarity = head.drug_similarities(drugs)
    outside = similarity < head.domain.drug_similarity
    setting: Setting = "methylation" if "methylation" in optional else "mutation" if optional else "expression"
    about = {
        "units": UNITS,
        "interval": {"level": head.level_of(setting), "lower": "ic50_lower", "upper": "ic50_upper"},
        "inputs": setting,
        "drugs": [
            {
                "name": drug.name,
                "pubchem_id": drug.pubchem_id,
                "smiles": drug.smiles,
                "in_training": drug.in_training,
                "similarity_to_training": round(float(score), 3),
                "outside_training_domain": bool(far),
            }
            for drug, score, far in zip(drugs, similarity, outside, strict=True)
        ],
        "cell_distance_of_training": head.domain.cell_distance,
        "training_tissues": list(head.tissues),
        "no_answer": f"null (NaN): the cell expresses none of the {len(head.panel)} genes that the model reads.",
        "terms": head.terms,
    }
    predictor = Predictor(head, drugs, optional)
    columns: tuple[Column, ...] = ("ln_ic50", "lower", "upper", "cell_distance")
    return tuple(DrugResponse(predictor, column, about) for column in columns)


def optional_inputs(
    head: DrugResponseSession, extras: Mapping[str, object], num_cells: int
) -> dict[str, NDArray[np.float32]]:
    """``mutation`` and ``methylation`` of a body, ``{"genes", "values": [cells, genes]}``, in the head's own columns.

    Columns that the head does not read are left out. Raises InvalidParameterError naming the field.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for field, unknown in OPTIONAL.items():
        given = extras.get(field)
        if given is None:
            continue
        names, values = _matrix(field, given, num_cells)
        places = {name: i for i, name in enumerate(getattr(head, f"{field}_names"))}
        table = np.full((num_cells, len(places)), unknown, dtype=np.float32)
        read = [(column, places[name]) for column, name in enumerate(names) if name in places]
        if not read:
            raise InvalidParameterError(
                f"None of the {len(names)} columns is read by the model; it reads {len(places)}, such as "
                f"{', '.join(list(places)[:3])}.",
                field=field,
            )
        own, at = np.array(read).T
        values = np.where(np.isnan(values[:, own]), unknown, values[:, own])
        _check_values(field, values, [names[column] for column in own])
        table[:, at] = values
        found[field] = table
    if "methylation" in found and "mutation" not in found:
        raise InvalidParameterError(
            "Methylation is read beside mutation calls. Send both (null for calls that are not known), or neither.",
            field="mutation",
        )
    return found


def _check_values(field: str, values: NDArray[np.float32], names: Sequence[str]) -> None:
    """``values [cells, names]``. Raises InvalidParameterError for the first that is wrong."""
    if field == "mutation":
        right, allowed = np.isin(values, (-1, 0, 1)), "1 (mutated), 0 (not), or null or -1 (unknown)"
    else:
        right, allowed = np.isnan(values) | ((values >= 0) & (values <= 1)), "a share from 0 to 1, or null"
    if not right.all():
        cell, column = (int(at[0]) for at in np.nonzero(~right))
        raise InvalidParameterError(
            f"'{field}' of cell number {cell + 1}, '{names[column][:100]}', is {values[cell, column]:g}; "
            f"it must be {allowed}.",
            field=field,
        )


def _matrix(field: str, given: object, num_cells: int) -> tuple[list[str], NDArray[np.float32]]:
    shape = f"Send {{'genes': [names], 'values': [[one number a name] a cell]}} in '{field}', null where unknown."
    if not isinstance(given, dict) or not isinstance(given.get("genes"), list):
        raise InvalidParameterError(f"'{field}' has no list 'genes'. {shape}", field=field)
    names = given["genes"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InvalidParameterError(f"'{field}' has genes that are no strings, or one twice. {shape}", field=field)
    try:
        values = np.array(given.get("values"), dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParameterError(
            f"'{field}' has values that are no table of numbers. {shape}", field=field
        ) from error
    if values.shape != (num_cells, len(names)):
        got = " x ".join(map(str, values.shape))
        raise InvalidParameterError(
            f"'{field}' has values of shape {got} for {num_cells} cells and {len(names)} genes. {shape}", field=field
        )
    return names, values
