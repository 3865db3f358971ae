"""Labels carried from a file of labelled cells to another, on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from scpalm.app.codecs.codec import CHUNK_CELLS
from scpalm.model.annotate import Annotation, Reference
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.genes.normalize import Declared
from scpalm.model.genes.prepare import Preparer
from scpalm.model.io.h5ad import H5adFile
from scpalm.model.io.hdf5 import open_hdf5
from scpalm.model.io.whole_file import replaced_when_whole
from scpalm.model.sessions.session import Session


def annotate_file(
    query: Path,
    reference: Path,
    label: str,
    target: Path,
    bundle: Bundle,
    session: Session,
    *,
    layer: str | None = None,
    declared: Declared = "auto",
    on_start: Callable[[int], None] = lambda num_cells: None,
    on_chunk: Callable[[int], None] = lambda num_cells: None,
) -> Annotation:
    """Write the labels of ``query``'s cells to ``target``, whole or not at all.

    ``*.csv``: a table of cell, label, nearest_label, probability, distance. Else a copy of ``query`` with ``obs``
    columns ``scpalm_label``, ``scpalm_nearest_label``, ``scpalm_probability``, ``scpalm_distance``.

    Args:
        reference: labelled cells; ``label``: the column of its ``obs``. layer, declared: of the query; the reference is
            read from X. on_start: told the number of cells of both. on_chunk: told the cells done, each time.

    Raises InputError for either file, OSError for the disk.
    """
    for source in (query, reference):
        if not source.is_file():
            raise InputError("no-such-file", f"{source} is not a file.", mend="Name an .h5ad file.")
        if target.exists() and target.samefile(source):
            raise InputError("same-file", f"{target} is an input itself.", mend="Name another output file with -o.")
    with H5adFile(reference) as labelled, H5adFile(query, layer=layer) as cells:
        labels = labelled.obs_column(label)
        if labels is None:
            raise InputError(
                "no-label-column",
                f"{reference.name} has no column '{label}' in obs.",
                mend="Name the column that holds its labels with --label.",
                field=label,
            )
        on_start(labelled.num_cells + cells.num_cells)
        known = Reference(_embed(labelled, bundle, session, "auto", on_chunk), [str(value) for value in labels])
        found = known.annotate(_embed(cells, bundle, session, declared, on_chunk))
        names = cells.cells
    columns: dict[str, pd.Categorical | NDArray[np.float64]] = {
        "label": pd.Categorical(found.label.astype(str)),
        "nearest_label": pd.Categorical(found.nearest_label.astype(str)),
        "probability": found.probability,
        "distance": found.distance,
    }
    with replaced_when_whole(target) as partial:
        if target.suffix == ".csv":
            pd.DataFrame(columns, index=pd.Index(names, name="cell")).to_csv(partial)
        else:
            shutil.copyfile(query, partial)
            with open_hdf5(partial, "r+") as file:
                _add_columns(file, {f"scpalm_{name}": values for name, values in columns.items()})
    return found


def _embed(
    file: H5adFile, bundle: Bundle, session: Session, declared: Declared, on_chunk: Callable[[int], None]
) -> NDArray[np.float32]:
    preparer = Preparer(bundle.vocabulary, file.genes, file.ensembl_ids, declared)
    parts = []
    for chunk in file.chunks(CHUNK_CELLS):
        parts.append(session.encode(preparer.prepare(chunk).rows).embedding)
        on_chunk(chunk.num_cells)
    return np.concatenate(parts)


def _add_columns(file: h5py.File, columns: dict[str, pd.Categorical | NDArray[np.float64]]) -> None:
    obs = file["obs"] if isinstance(file.get("obs", getlink=True), h5py.HardLink) else None
    if not isinstance(obs, h5py.Group):
        raise UnreadableError(
            "old-h5ad",
            "obs is stored in an old way, to which no column can be added.",
            mend="Write the file again with a current anndata, or name a .csv with -o.",
        )
    try:
        order = [str(name) for name in obs.attrs.get("column-order", ())]
        for name, values in columns.items():
            if name in obs:
                del obs[name]
            write_elem(obs, name, values)
        kept = [name for name in order if name not in columns]
        obs.attrs["column-order"] = np.array([*kept, *columns], dtype=h5py.string_dtype())
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnreadableError(
            "broken-h5ad",
            f"The labels cannot be written into the copy of the file ({str(error)[:200]}).",
            mend="Write the file again with a current anndata, or name a .csv with -o.",
        ) from error
