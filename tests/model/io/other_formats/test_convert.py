"""10x, MuData and packed files become the h5ad file with the same cells, under the same limits."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.model.io.other_formats.convert import as_h5ad, folder_as_h5ad
from tests.model.io.other_formats.other_files import (
    CELLS,
    COUNTS,
    GENES,
    IDS,
    adata,
    texts,
    write_10x,
    write_10x_folder,
    write_mudata,
)


def check(path: Path) -> anndata.AnnData:
    """The cells are those of `other_files`, for us and for anndata."""
    with H5adFile(path) as file:
        (chunk,) = file.chunks(10)
        assert (file.columns.names, file.cells, file.columns.ensembl_ids) == (GENES, CELLS, IDS)
        np.testing.assert_array_equal(chunk.data, COUNTS.data)
    back = anndata.read_h5ad(path)
    np.testing.assert_array_equal(np.asarray(sparse.csr_matrix(back.X).todense()), COUNTS.todense())
    return back


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


def test_10x_of_cell_ranger_3_keeps_the_feature_types(tmp_path: Path, folder: Path) -> None:
    back = check(as_h5ad(write_10x(tmp_path / "filtered.h5"), folder))
    assert back.var["feature_types"].tolist() == ["Gene Expression", "Gene Expression", "Antibody Capture"]


@pytest.mark.parametrize("genomes", [("GRCh38",), ("hg19",), ("GRCh38", "mm10"), ("mm10", "hg19")])
def test_10x_of_cell_ranger_2_is_read_by_its_human_genome(
    tmp_path: Path, folder: Path, genomes: tuple[str, ...]
) -> None:
    check(as_h5ad(write_10x(tmp_path / "old.h5", genomes), folder))


def test_mudata_is_read_by_its_rna(tmp_path: Path, folder: Path) -> None:
    check(as_h5ad(write_mudata(tmp_path / "cells.h5mu"), folder))


def test_mudata_without_rna_names_what_it_has(tmp_path: Path, folder: Path) -> None:
    path = write_mudata(tmp_path / "cells.h5mu", "prot")
    with h5py.File(path, "r+") as file:
        file.create_group("mod/atac")
    with pytest.raises(InputError, match="atac, prot"):
        as_h5ad(path, folder)


def test_packed_h5ad_is_unpacked(tmp_path: Path, folder: Path) -> None:
    adata().write_h5ad(tmp_path / "cells.h5ad")
    content = (tmp_path / "cells.h5ad").read_bytes()
    (tmp_path / "cells.gz").write_bytes(gzip.compress(content))
    check(as_h5ad(tmp_path / "cells.gz", folder))
    (folder / "unpacked").unlink()
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("a/cells.h5ad", content)
        archive.writestr("__MACOSX/a/._cells.h5ad", b"")
    check(as_h5ad(tmp_path / "cells.zip", folder))


def test_h5ad_is_used_unchanged(tmp_path: Path, folder: Path) -> None:
    adata().write_h5ad(tmp_path / "cells.h5ad")
    assert as_h5ad(tmp_path / "cells.h5ad", folder) == tmp_path / "cells.h5ad" and not list(folder.iterdir())


def test_folders_of_10x_and_zarr(tmp_path: Path) -> None:
    for number, made in enumerate((write_10x_folder(tmp_path / "run"), tmp_path / "cells.zarr")):
        if number:
            adata().write_zarr(made)
        scratch = tmp_path / f"scratch{number}"
        scratch.mkdir()
        check(folder_as_h5ad(made, scratch))
    with pytest.raises(InputError, match=r"no zarr store; it holds .*barcodes|without matrix.mtx"):
        (tmp_path / "run" / "matrix.mtx").unlink()
        folder_as_h5ad(tmp_path / "run", tmp_path / "scratch0")


def test_a_bomb_in_gzip_is_over_the_limit(tmp_path: Path, folder: Path) -> None:
    adata().write_h5ad(tmp_path / "cells.h5ad")
    content = (tmp_path / "cells.h5ad").read_bytes() + bytes(1 << 20)
    (tmp_path / "cells.gz").write_bytes(gzip.compress(content))
    with pytest.raises(OverLimitError, match="decompressed"):
        as_h5ad(tmp_path / "cells.gz", folder, max_bytes=1 << 19)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-2000])
    with pytest.raises(UnreadableError, match="decompressed"):
        as_h5ad(tmp_path / "cut.gz", folder)


def _raw(path: Path) -> None:
    path.unlink()
    write_10x(path, counts=sparse.vstack([COUNTS, sparse.csr_matrix((20, 3))]).tocsr())


def _probes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["matrix/features/probe_region"] = texts(["spliced"] * 3)


def _link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = h5py.ExternalLink("/etc/passwd", "/")


def _external(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["matrix/data"]
        file["matrix"].create_dataset("data", (4,), "i4", external=[("/etc/passwd", 0, 16)])


def _shape(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["matrix/shape"]
        file["matrix/shape"] = np.array([9, 9])


def _no_names(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["matrix/features"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_raw, "all barcodes"),
        (_probes, "probes"),
        (_link, "link out of the file"),
        (_external, "other files"),
        (_shape, "declares"),
        (_no_names, "no gene names"),
    ],
)
def test_a_10x_file_that_is_no_matrix_of_cells_is_refused(tmp_path: Path, folder: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    damage(write_10x(tmp_path / "x.h5"))
    with pytest.raises(InputError, match=words):
        as_h5ad(tmp_path / "x.h5", folder)


def test_two_genomes_that_may_both_be_human_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="each of"):
        as_h5ad(write_10x(tmp_path / "x.h5", ("hg19", "GRCh38")), folder)


def test_declared_sizes_are_checked_before_anything_is_allocated(tmp_path: Path, folder: Path) -> None:
    path = write_10x(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["matrix/indptr"]
        file["matrix"].create_dataset("indptr", (1 << 40,), "i8", chunks=(1024,))
    with pytest.raises(OverLimitError):
        as_h5ad(path, folder, max_bytes=1 << 20)
