"""What an HDF5 file is that is no h5ad, by the objects in its root."""

from __future__ import annotations

from pathlib import Path

import h5py

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.access import child_names, find, guarded
from scpalm.model.io.other_formats.magic import TO_H5AD, Kind

_10X_H5 = f'`scpalm embed` and the service read it directly; elsewhere: scanpy.read_10x_h5("x.h5"){TO_H5AD}.'


def kind_of_hdf5(file: h5py.File, path: Path) -> str:
    """``h5ad``, ``10x``, ``10x-v2`` or ``h5mu`` for what is read; "" for anything else."""
    names = set(child_names(file, 200))
    if {"obs", "var"} <= names and "mod" not in names:
        return "h5ad"
    if "mod" in names and isinstance(find(file, "mod"), h5py.Group):
        return "h5mu"
    if _is_matrix(file, "matrix"):
        return "10x"
    groups = [name for name in names if _is_matrix(file, name)]
    return "10x-v2" if groups and len(groups) == len([name for name in names if not name.startswith("_")]) else ""


def refuse_other_hdf5(file: h5py.File, path: Path) -> None:
    """Raise InputError (``not-h5ad``) for a file of a known kind that is no h5ad, with the line that converts it."""
    links = file.id.links
    with guarded("The list of objects in the file"):
        # Most files: this takes no time.
        if any(map(links.exists, (b"obs", b"var", b"X"))) and not links.exists(b"mod"):
            return  # an h5ad file, perhaps damaged: what reads it says where
    kind = _other_kind(file, path)
    if kind is not None:
        raise InputError("not-h5ad", kind.instead_of("h5ad"), hint=kind.hint, field="file")


def _is_matrix(file: h5py.File, name: str) -> bool:
    group = find(file, name)
    return isinstance(group, h5py.Group) and all(part in group for part in ("data", "indices", "indptr", "barcodes"))


def _other_kind(file: h5py.File, path: Path) -> Kind | None:
    with guarded("The file"):
        attributes = set(file.attrs)
    names = set(child_names(file, 200))
    if kind_of_hdf5(file, path) in ("10x", "10x-v2"):
        return Kind("10x's matrix (.h5)", _10X_H5)
    for kind, found in (
        (_LOOM, {"row_attrs", "col_attrs"} <= names),
        (_H5SEURAT, "active.assay" in attributes or {"assays", "cell.names"} <= names),
        (_MOLECULES, "barcode_idx" in names or {"barcode", "umi"} <= names),
        (_MUDATA, "mod" in names),
        (_MATLAB, "#refs#" in names or "#subsystem#" in names or _begins(path, b"MATLAB")),
        (_HDF5_ARRAY, any(name.startswith("assay") and name[5:].isdigit() for name in names)),
        (_NETCDF, "_NCProperties" in attributes),
        (_PANDAS, "PYTABLES_FORMAT_VERSION" in attributes),
    ):
        if found:
            return kind
    shown = ", ".join(sorted(names)[:6])[:150] or "nothing"
    return Kind(f"an HDF5 file with {shown} in its root", "Send an .h5ad file, as written by anndata's write_h5ad.")


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


_LOOM = Kind("a loom file", f'scanpy.read_loom("x.loom"){TO_H5AD} converts it (needs: pip install loompy).')
_H5SEURAT = Kind(
    "an h5Seurat file",
    'In R: zellkonverter::writeH5AD(as.SingleCellExperiment(SeuratDisk::LoadH5Seurat("x.h5Seurat")), "cells.h5ad").',
)
_MOLECULES = Kind(
    "10x's molecule_info.h5, a list of molecules",
    "Send filtered_feature_bc_matrix.h5 from the same folder: it has the counts of the cells.",
)
_MUDATA = Kind("a MuData file (.h5mu)", f'`scpalm embed` reads its rna, as mudata.read("x.h5mu")["rna"]{TO_H5AD} does.')
_MATLAB = Kind("a MATLAB file (v7.3)", "Export the matrix from MATLAB with gene and cell names, as a table.")
_HDF5_ARRAY = Kind(
    "the assays.h5 of an R SummarizedExperiment, without names",
    'In R: zellkonverter::writeH5AD(HDF5Array::loadHDF5SummarizedExperiment("folder"), "cells.h5ad").',
)
_NETCDF = Kind("a netCDF file", "Put matrix and names into an AnnData, and write_h5ad.")
_PANDAS = Kind(
    "a table that pandas wrote (HDFStore)", f'anndata.AnnData(pandas.read_hdf("x.h5")){TO_H5AD}; cells as rows.'
)
