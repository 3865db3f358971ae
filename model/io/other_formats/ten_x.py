"""10x's matrix (.h5), a MuData's rna and a 10x folder, each written as an h5ad file that everything else reads.

The arrays of a matrix are copied as they are stored, without unpacking them: its columns are cells, which is the same
as the rows of h5ad's CSR. So the limits on what a file declares hold where the h5ad file is read.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.access import checked, child_names, find, guarded, open_hdf5, read_strings
from scpalm.model.io.hdf5.kinds import kind_of_hdf5

_HUMAN = ("grch", "hg19", "hg38", "human")
_FIRST_MODALITIES = ("rna", "gex", "gene expression")
# A filtered matrix has no barcodes without counts; a raw one is nearly all such barcodes.
_RAW_SHARE = 0.5


def write_h5ad(source: Path, target: Path, max_bytes: int | None = None) -> bool:
    """Write the cells of a 10x .h5 or an .h5mu file as h5ad. False, and no file, if ``source`` is neither.

    Raises InputError, UnreadableError, OverLimitError.
    """
    with open_hdf5(source) as file:
        kind = kind_of_hdf5(file, source)
        if kind not in ("10x", "10x-v2", "h5mu"):
            return False
        with h5py.File(target, "w") as out:
            if kind == "h5mu":
                _copy_modality(file, out)
            else:
                _write_matrix(_matrix_group(file, kind), out, max_bytes)
    return True


def _copy_modality(file: h5py.File, out: h5py.File) -> None:
    """Copy the rna modality of a MuData file to the root."""
    modalities = find(file, "mod")
    assert isinstance(modalities, h5py.Group)
    names = {name.lower(): name for name in child_names(modalities)}
    chosen = next((names[name] for name in _FIRST_MODALITIES if name in names), None)
    if chosen is None and len(names) == 1:
        chosen = next(iter(names.values()))
    group = find(modalities, chosen) if chosen else None
    if not isinstance(group, h5py.Group):
        raise InputError(
            "no-rna",
            f"The MuData file has no modality 'rna'; it has {', '.join(sorted(names.values())) or 'none'}.",
            hint='Send the modality with RNA counts: mdata["name"].write_h5ad("cells.h5ad").',
            field="mod",
        )
    with guarded(f"'mod/{chosen}'"):
        for name, value in group.attrs.items():
            out.attrs[name] = value
        for name in child_names(group, 200):
            group.copy(name, out)


def _matrix_group(file: h5py.File, kind: str) -> h5py.Group:
    """The group of the matrix. Of several genomes (Cell Ranger 2), the human one. Raises InputError."""
    names = ["matrix"] if kind == "10x" else child_names(file, 50)
    if len(names) > 1:
        human = [name for name in names if name.lower().startswith(_HUMAN)]
        if len(human) != 1:
            raise InputError(
                "several-genomes",
                f"10x's file has a matrix for each of {', '.join(names)}, and which one is human is not clear.",
                hint='Choose one: scanpy.read_10x_h5("x.h5", genome="GRCh38").write_h5ad("cells.h5ad").',
                field="file",
            )
        names = human
    group = find(file, names[0])
    if not isinstance(group, h5py.Group):
        raise InputError("missing-part", f"'{names[0]}' is missing.", hint="Copy the file again.", field=names[0])
    if find(group, "features/probe_region") is not None or find(group, "features/probe_ids") is not None:
        raise InputError(
            "probe-matrix",
            "The file is 10x's matrix of probes, not of genes.",
            hint="Send filtered_feature_bc_matrix.h5 from the same folder.",
            field="features",
        )
    return group


def _write_matrix(group: h5py.Group, out: h5py.File, max_bytes: int | None) -> None:
    barcodes = _strings(group, ("barcodes",), max_bytes)
    names = _strings(group, ("features/name", "gene_names", "genes"), max_bytes)
    if barcodes is None or names is None:
        raise InputError(
            "missing-part",
            "10x's file has no barcodes or no gene names.",
            hint="Copy it again, or send filtered_feature_bc_matrix.h5 of Cell Ranger 3 or later.",
            field="features",
        )
    _refuse_raw(group, max_bytes)
    write_frames(
        out,
        barcodes,
        names,
        {
            "gene_ids": _strings(group, ("features/id", "genes"), max_bytes),
            "feature_types": _strings(group, ("features/feature_type",), max_bytes),
            "genome": _strings(group, ("features/genome",), max_bytes),
        },
    )
    matrix = out.create_group("X")
    for part in ("data", "indices", "indptr"):
        with guarded(f"'{part}'"):
            group.copy(checked(find(group, part), part, max_bytes=max_bytes), matrix, name=part)
    matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    matrix.attrs["shape"] = np.array([len(barcodes), len(names)], np.int64)
    _check_shape(group, (len(names), len(barcodes)))


def _check_shape(group: h5py.Group, expected: tuple[int, int]) -> None:
    node = find(group, "shape")
    if node is None:
        return
    with guarded("'shape'"):
        shape = tuple(int(length) for length in checked(node, "shape", max_bytes=1024)[:])
    if shape != expected:
        raise InputError(
            "shape-mismatch",
            f"10x's file declares {shape}, but has {expected[0]} features and {expected[1]} barcodes.",
            hint="Copy the file again.",
            field="shape",
        )


def _refuse_raw(group: h5py.Group, max_bytes: int | None) -> None:
    """Raise InputError for the matrix of all barcodes, most of which have no cell."""
    with guarded("'indptr'"):
        indptr = np.asarray(checked(find(group, "indptr"), "indptr", max_bytes=max_bytes)[:])
    empty = float((np.diff(indptr) == 0).mean()) if len(indptr) > 1 else 0.0
    if empty > _RAW_SHARE:
        raise InputError(
            "raw-matrix",
            f"{empty:.0%} of the {len(indptr) - 1:,} barcodes have no counts: this is 10x's matrix of all barcodes.",
            hint="Send filtered_feature_bc_matrix.h5 from the same run: it has the cells.",
            field="barcodes",
        )


def _strings(group: h5py.Group, paths: tuple[str, ...], max_bytes: int | None) -> NDArray[np.object_] | None:
    """The first of several datasets of strings that the group has."""
    for path in paths:
        node = find(group, path)
        if isinstance(node, h5py.Dataset):
            return read_strings(checked(node, path, max_bytes=max_bytes), path)
    return None


def write_frames(
    out: h5py.File,
    cells: NDArray[np.object_],
    genes: NDArray[np.object_],
    columns: dict[str, NDArray[np.object_] | None],
) -> None:
    """Write ``obs`` and ``var`` of an h5ad file; columns of ``var`` that are None are left out."""
    out.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    present = {name: values for name, values in columns.items() if values is not None and len(values) == len(genes)}
    for name, index, own in (("obs", cells, {}), ("var", genes, present)):
        frame = out.create_group(name)
        frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        frame.attrs["column-order"] = np.array(list(own), dtype=h5py.string_dtype())
        for column, values in {"_index": index, **own}.items():
            node = frame.create_dataset(column, data=values, dtype=h5py.string_dtype(), compression="gzip")
            node.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        out.create_group(name).attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
