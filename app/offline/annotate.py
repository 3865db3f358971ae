"""Labels carried from a file of labelled cells to another, on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from scpalm.app.offline.files import refuse_same_file
from scpalm.model.annotate import Annotation
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.io.hdf5 import open_hdf5
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec


@dataclass(frozen=True)
class LabelSource:
    """Labelled cells. path: an h5ad file, read from X. label: the column of its ``obs``."""

    path: Path
    label: str = "cell_type"


def annotate_file(
    query: Path, reference: LabelSource, target: Path, engine: Engine, spec: RequestSpec, progress: Progress
) -> Annotation:
    """Write the labels of ``query``'s cells to ``target``, complete or not at all.

    ``*.csv``: a table of cell, label, nearest_label, probability, distance. Otherwise a copy of ``query`` with ``obs``
    columns ``scpalm_label``, ``scpalm_nearest_label``, ``scpalm_probability``, ``scpalm_distance``.

    ``spec`` says how to read the query.

    Raises InputError for either file, OSError for the disk.
    """
    for source in (query, reference.path):
        if not source.is_file():
            raise InputError("no-such-file", f"{source} is not a file.", mend="Name an .h5ad file.")
    refuse_same_file(target, query, reference.path)
    names, found = engine.transfer_labels(query, reference.path, label=reference.label, spec=spec, progress=progress)
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
