"""What was sent in place of h5ad is called by its name, with a way out."""

from __future__ import annotations

import base64
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.model.io.other_formats.magic import HDF5
from scpalm.model.io.other_formats.sniff import kind_of
from tests.model.io.other_formats.other_files import adata, texts, write_10x, write_mudata

RDS = b"X\n\x00\x00\x00\x03\x00\x04\x03\x01\x00\x03\x05\x00\x00\x00\x00\x05UTF-8"


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return buffer.getvalue()


def tarred(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, data=np.ones(3))
    return buffer.getvalue()


HDF5_BYTES = HDF5 + bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(RDS), "R object"),
        (RDS, "R object"),
        (gzip.compress(b"RDX3\nX\n"), "R object"),
        (gzip.compress(tarred("a/matrix.mtx.gz", "a/barcodes.tsv.gz")), "10x's matrix folder"),
        (tarred("a/matrix.mtx"), "10x's matrix folder"),
        (tarred("readme"), "tar archive"),
        (b",CD3D,LYZ\ncell1,3,0\n", "CSV"),
        (b"\xef\xbb\xbfgene\tcell1\nCD3D\t3\n", "TSV"),
        (b"#1.2\n2\t3\nName\n", "GCT"),
        (b"%%MatrixMarket matrix coordinate integer general\n", "MatrixMarket"),
        (gzip.compress(b"%%MatrixMarket matrix"), "MatrixMarket"),
        (zipped(".zattrs", ".zgroup", "X/.zarray"), "zarr store"),
        (zipped("c.zarr/zarr.json"), "zarr store"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel"),
        (zipped("[Content_Types].xml", "word/document.xml"), "Office"),
        (zipped("a.h5ad", "b.h5ad"), "several"),
        (zipped("readme.txt"), "readme.txt"),
        (npz(), "npz"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "Excel"),
        (b"PAR1" + bytes(40), "Parquet"),
        (b"FEA1" + bytes(40), "Feather"),
        (b"\x93NUMPY\x01\x00", ".npy"),
        (pickle.dumps([1, 2]), "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"\n\n <!DOCTYPE html><html>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "error page"),
        (b'{"message": "Not Found"}', "JSON"),
        (base64.b64encode(HDF5_BYTES), "base64"),
        (b"data:application/x-hdf5;base64," + base64.b64encode(HDF5_BYTES), "base64"),
        (HDF5_BYTES.replace(b"\r\n", b"\n"), "--data-binary"),
        (HDF5_BYTES.replace(b"\n", b"\r\n"), "--data-binary"),
        (HDF5_BYTES.replace(b"\r", b"").replace(b"\n", b""), "--data-binary"),
        (HDF5_BYTES.decode("utf-8", "replace").encode(), "--data-binary"),
        (HDF5_BYTES.decode("latin-1").encode(), "--data-binary"),
        (b"MATLAB 5.0 MAT-file", "MATLAB"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"CDF\x01", "netCDF"),
        (b"%PDF-1.7", "PDF"),
        (b"\x89PNG\r\n", "image"),
        (b"", "empty"),
        (b"\x00\x01\x02\x03", "unknown"),
    ],
    # gzip writes the time into its header, and pytest-xdist needs the same ids in each process.
    ids=lambda value: "content" if isinstance(value, bytes) else None,
)
def test_a_file_is_called_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "cells.h5ad").write_bytes(content)
    with pytest.raises(InputError) as caught:
        H5adFile(tmp_path / "cells.h5ad")
    assert words in str(caught.value) and caught.value.code == "not-hdf5" and caught.value.hint


def _loom(file: h5py.File) -> None:
    file["matrix"], file["row_attrs/Gene"], file["col_attrs/CellID"] = np.ones((2, 2)), texts(["A"]), texts(["c"])


def _h5seurat(file: h5py.File) -> None:
    file.attrs["active.assay"] = "RNA"
    file.create_group("assays/RNA")


def _molecules(file: h5py.File) -> None:
    file["barcode_idx"], file["feature_idx"], file["count"] = np.ones(3), np.ones(3), np.ones(3)


def _netcdf(file: h5py.File) -> None:
    file.attrs["_NCProperties"] = "version=2"


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (_loom, "loom"),
        (_h5seurat, "h5Seurat"),
        (_molecules, "molecule_info"),
        (_netcdf, "netCDF"),
        (lambda file: file.create_group("#refs#"), "MATLAB"),
        (lambda file: file.create_dataset("assay001", data=np.ones((2, 2))), "SummarizedExperiment"),
        (lambda file: file.create_dataset("weights", data=np.ones(3)), "weights"),
        (lambda file: None, "nothing in its root"),
    ],
)
def test_another_hdf5_file_is_called_by_its_name(
    tmp_path: Path, fill: Callable[[h5py.File], object], words: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        fill(file)
    with pytest.raises(InputError, match=words) as caught:
        H5adFile(tmp_path / "x.h5")
    assert "anndata.read_h5ad" not in str(caught.value)


def test_10x_and_mudata_say_who_reads_them(tmp_path: Path) -> None:
    for path in (write_10x(tmp_path / "x.h5"), write_mudata(tmp_path / "x.h5mu")):
        with pytest.raises(InputError, match="scpalm embed") as caught:
            H5adFile(path)
        assert caught.value.code == "not-h5ad"


def test_the_lines_that_convert_tables_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import anndata
    import scanpy

    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(adata().X.toarray(), adata().obs_names, adata().var_names)
    frame.to_csv("table.csv")
    frame.to_parquet("t.parquet")
    scanpy.read_csv("table.csv").write_h5ad("cells.h5ad")
    with H5adFile("cells.h5ad") as file:
        assert file.columns.names == list(frame.columns)
    anndata.AnnData(pd.read_parquet("t.parquet")).write_h5ad("cells.h5ad")
    adata().write_zarr("folder")
    anndata.io.read_zarr("folder").write_h5ad("cells.h5ad")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\x1f\x8b", b"PK\x03\x04", b"{", b"<", HDF5]))
def test_any_bytes_have_a_name(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    path = tmp_path_factory.mktemp("x") / "file"
    path.write_bytes(start + content)
    kind = kind_of(path)
    assert kind.name and kind.hint
