"""Transfer labels from a file of labelled cells to another file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from scpalm.app.offline.files import readable, refuse_same_file
from scpalm.app.offline.tables import H5AD, TABLES, check_ending
from scpalm.model.annotate import Annotation
from scpalm.model.engine import Engine
from scpalm.model.errors import UnreadableError
from scpalm.model.io.hdf5 import open_hdf5
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec


@dataclass(frozen=True)
class LabelSource:
    """Labelled cells.

    Attributes:
        path: an h5ad file; its X is used.
        label: column of ``obs`` with the labels.
    """

    path: Path
    label: str = "cell_type"


def annotate_file(
    query: Path, reference: LabelSource, target: Path, engine: Engine, spec: RequestSpec, progress: Progress
) -> Annotation:
    """Label the cells of ``query`` and write them to ``target``. If it fails, ``target`` is not written.

    Args:
        query: h5ad file with the cells to label.
        reference: the labelled cells.
        target: output. ``*.csv``, ``*.tsv`` and ``*.parquet`` become a table with the columns cell, label,
            nearest_label, probability and distance. ``*.h5ad`` becomes a copy of ``query`` with the ``obs`` columns
            ``scpalm_label``, ``scpalm_nearest_label``, ``scpalm_probability`` and ``scpalm_distance``.
        engine: the model.
        spec: how to read the query (its layer and type of input).
        progress: receives the number of cells done.

    Raises:
        InputError: one of the files cannot be used.
        OSError: reading or writing failed.
    """
    check_ending(target, (H5AD, *TABLES))
    with readable(query) as cells, readable(reference.path) as labelled:
        refuse_same_file(target, query, reference.path)
        names, found = engine.transfer_labels(cells, labelled, label=reference.label, spec=spec, progress=progress)
        _write(names, found, cells, target)
    return found


def _write(names: list[str], found: Annotation, query: Path, target: Path) -> None:
    columns: dict[str, pd.Categorical | NDArray[np.float64]] = {
        "label": pd.Categorical(found.label.astype(str)),
        "nearest_label": pd.Categorical(found.nearest_label.astype(str)),
        "probability": found.probability,
        "distance": found.distance,
    }
    with replaced_when_whole(target) as partial:
        table, suffix = pd.DataFrame(columns, index=pd.Index(names, name="cell")), target.suffix.lower()
        if suffix == ".parquet":
            table.reset_index().to_parquet(partial, index=False)
        elif suffix in TABLES:
            table.to_csv(partial, sep="," if suffix == ".csv" else "\t")
        else:
            shutil.copyfile(query, partial)
            with open_hdf5(partial, "r+") as file:
                _add_columns(file, {f"scpalm_{name}": values for name, values in columns.items()})


def _add_columns(file: h5py.File, columns: dict[str, pd.Categorical | NDArray[np.float64]]) -> None:
    obs = file["obs"] if isinstance(file.get("obs", getlink=True), h5py.HardLink) else None
    if not isinstance(obs, h5py.Group):
        raise UnreadableError(
            "old-h5ad",
            "obs is stored in an old format that cannot be extended.",
            hint="Write the file again with a current anndata, or choose a .csv output with -o.",
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
            f"The labels cannot be written to the copy of the file ({str(error)[:200]}).",
            hint="Write the file again with a current anndata, or choose a .csv output with -o.",
        ) from error
