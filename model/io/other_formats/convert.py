"""Any file or folder of cells that is read, as an h5ad file: 10x, MuData, a zarr store, and h5ad within gzip or zip."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

import h5py

from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.io.other_formats.magic import HDF5
from scpalm.model.io.other_formats.sniff import h5ad_in_zip, is_gzip, is_zip
from scpalm.model.io.other_formats.ten_x import write_h5ad

_BLOCK = 1 << 20
_MATRIX_NAMES = ("matrix.mtx", "matrix.mtx.gz")


def as_h5ad(path: Path, folder: Path, max_bytes: int | None = None) -> Path:
    """``path`` itself if it is h5ad or unknown, or the file in ``folder`` that it was converted to.

    ``folder`` exists and is of this file alone: what an earlier call made there is used again. ``max_bytes``: largest
    size after decompression.

    Raises InputError, UnreadableError, OverLimitError.
    """
    path = _unpacked(path, folder, max_bytes)
    with path.open("rb") as stream:
        head = stream.read(8)
    if head != HDF5 and not h5py.is_hdf5(path):
        return path  # what opens it says what it is
    target = folder / "converted.h5ad"
    return target if target.exists() or write_h5ad(path, target, max_bytes) else path


def _unpacked(path: Path, folder: Path, max_bytes: int | None) -> Path:
    """The HDF5 file within gzip data, or alone in a zip archive; else the path itself."""
    with path.open("rb") as stream:
        head = stream.read(8)
    target = folder / "unpacked"
    try:
        if is_gzip(head):
            with gzip.open(path) as packed:
                if packed.read(len(HDF5)) != HDF5:
                    return path
                packed.seek(0)
                _copy(cast("IO[bytes]", packed), target, max_bytes)
            return target
        if is_zip(head) and (name := h5ad_in_zip(path)):
            with zipfile.ZipFile(path) as archive, archive.open(name) as packed:
                _copy(packed, target, max_bytes)
            return target
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        reason = str(error)[:150] or type(error).__name__
        raise UnreadableError(
            "bad-compression", f"The file cannot be decompressed ({reason}).", hint="Send it again.", field="file"
        ) from error
    return path


def _copy(packed: IO[bytes], target: Path, max_bytes: int | None) -> None:
    size = 0
    with target.open("wb") as out:
        while block := packed.read(_BLOCK):
            size += len(block)
            if max_bytes is not None and size > max_bytes:
                raise OverLimitError(
                    "declared-size",
                    f"The file is larger than {max_bytes} bytes when decompressed, which is the limit.",
                    hint="Send fewer cells at a time.",
                    field="file",
                )
            out.write(block)


def folder_as_h5ad(path: Path, folder: Path) -> Path:
    """A 10x folder (``matrix.mtx``, ``barcodes.tsv``, ``features.tsv``) or a zarr store, as an h5ad file in ``folder``.

    For the command line: the folder is the user's own, and its matrix is read whole. Raises InputError.
    """
    target = folder / "converted.h5ad"
    matrix = next((path / name for name in _MATRIX_NAMES if (path / name).is_file()), None)
    if matrix is not None:
        from scpalm.model.io.other_formats.ten_x_folder import write_folder

        write_folder(matrix, target)
    elif any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json", ".zmetadata")):
        from scpalm.model.io.zarr import write_store

        write_store(path, target)
    else:
        shown = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        raise InputError(
            "not-cells",
            f"{path} is a folder without matrix.mtx and is no zarr store; it holds {shown}.",
            hint="Give an .h5ad file, 10x's .h5 or matrix folder, an .h5mu file or a zarr store.",
        )
    return target
