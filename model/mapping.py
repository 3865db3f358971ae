"""Map an AnnData onto an integrated one: the same axes, and the labels of the nearest reference cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.values.declared import AUTO
from scpalm.model.integration.onto import IntegratedReference, carry_labels, map_onto
from scpalm.model.io.cells import no_column, open_cells
from scpalm.model.io.labels import Categories
from scpalm.model.output.note import NOTE_KEY, stored_note
from scpalm.model.sessions.session import Session
from scpalm.model.stream import CellReader

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

INTEGRATED_KEY = "X_scpalm_integrated"


@dataclass(frozen=True)
class MapOptions:
    """How to map cells.

    Attributes:
        batch_key: column of the new cells' ``obs`` with their batches; None: they are one batch.
        label: column of the reference's ``obs`` whose values new cells take over; "" for none.
        layer: matrix of the new cells to read; None for the one that holds the counts.
    """

    batch_key: str | None = None
    label: str = ""
    layer: str | None = None


@dataclass(frozen=True)
class Mapping:
    """What was written: keys of ``obs`` and ``obsm``, and the number of cells that the reference hardly covers."""

    keys: tuple[str, ...]
    num_cells: int
    num_far: int


# Cells this many times farther from the reference than its cells are from each other count as not covered.
FAR = 2.0


def map_cells(bundle: Bundle, session: Session, cells: AnnData, reference: AnnData, options: MapOptions) -> Mapping:
    """Write the position of each cell of ``cells`` among those of ``reference``, which does not change.

    Writes ``obsm["X_scpalm_integrated"]`` and ``obs["scpalm_reference_distance"]`` (1: as close as reference cells are
    to each other); with a label also ``obs["scpalm_reference_label"]`` and ``obs["scpalm_reference_share"]``, the share
    of the 15 nearest reference cells that have it.

    Raises InputError if the reference was not integrated, a column is missing, or the cells cannot be read.
    """
    stored, key = _stored(reference)
    known = IntegratedReference(
        _embed(bundle, session, reference, None),
        stored,
        _column(reference, key, "reference"),
        session.info.num_components,
    )
    one = Categories(("all",), np.zeros(cells.n_obs, np.int32))
    batches = one if options.batch_key is None else _column(cells, options.batch_key, "file")
    labels = _column(reference, options.label, "reference") if options.label else None
    mapped = map_onto(_embed(bundle, session, cells, options.layer), batches, known)
    cells.obsm[INTEGRATED_KEY] = mapped.values
    columns: dict[str, Any] = {"scpalm_reference_distance": mapped.distance}
    if labels is not None:
        codes, share = carry_labels(mapped, labels)
        columns |= {"scpalm_reference_label": _categorical(labels, codes), "scpalm_reference_share": share}
    for name, values in columns.items():
        cells.obs[name] = values
    return Mapping((INTEGRATED_KEY, *columns), cells.n_obs, int((mapped.distance > FAR).sum()))


def _stored(reference: AnnData) -> tuple[NDArray[np.float32], str]:
    """The integrated embedding of a reference, and the column with its batches."""
    hint = "Integrate it first: scpalm integrate REFERENCE.h5ad --batch-key COLUMN -o INTEGRATED.h5ad"
    if INTEGRATED_KEY not in reference.obsm:
        raise InputError("not-integrated", f"The reference has no obsm['{INTEGRATED_KEY}'].", hint=hint)
    try:
        key = stored_note(reference.uns[NOTE_KEY])["integration"]["batch_key"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "not-integrated",
            f"uns['{NOTE_KEY}'] of the reference does not name the column of batches.",
            hint=hint,
        ) from error
    return np.asarray(reference.obsm[INTEGRATED_KEY], dtype=np.float32), str(key)


def _column(cells: AnnData, name: str, which: str) -> Categories:
    if name not in cells.obs:
        raise no_column(name, [str(column) for column in cells.obs.columns], f"obs of the {which}")
    return Categories.of(cells.obs[name].to_numpy())


def _embed(bundle: Bundle, session: Session, cells: AnnData, layer: str | None) -> NDArray[np.float32]:
    with open_cells(cells, layer=layer) as source:
        parts = [session.encode(part.rows, tokens=False).embedding for part in CellReader(bundle, source, AUTO)]
    return np.concatenate(parts)


def _categorical(labels: Categories, codes: NDArray[np.int32]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories=list(labels.names))
