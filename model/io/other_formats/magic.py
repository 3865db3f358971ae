"""The first bytes of formats that people send in place of h5ad, and the line that converts each.

The lines for Python were tried with scanpy 1.11 and anndata 0.12.
"""

from __future__ import annotations

from dataclasses import dataclass

HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Kind:
    """A format that is not read.

    Attributes:
        name: what the file is, to follow "The file is".
        hint: what to do.
    """

    name: str
    hint: str

    def instead_of(self, wanted: str) -> str:
        """A sentence: what the file is, and that it is not ``wanted`` where that is not plain from the name."""
        plain = self.name == "empty" or ", " in self.name or ("HDF5" in self.name and "HDF5" in wanted)
        return f"The file is {self.name}." if plain else f"The file is {self.name}, not {wanted}."


TO_H5AD = '.write_h5ad("cells.h5ad")'
_TEXT_MODE = Kind(
    "HDF5 that was changed on its way as text (line ends or bytes were replaced)",
    "Send it as bytes: `curl --data-binary @file` or `curl -F file=@file`, not -d; copy it in binary mode.",
)
R_OBJECT = Kind(
    "an R object (.rds or .RData)",
    'Convert it in R: zellkonverter::writeH5AD(as.SingleCellExperiment(readRDS("cells.rds")), "cells.h5ad").',
)
TEN_X_FOLDER = (
    'Unpack it, then scanpy.read_10x_mtx("folder")' + TO_H5AD + ", or send filtered_feature_bc_matrix.h5; "
    "`scpalm embed folder` reads the unpacked folder."
)
TABLE = 'scanpy.read_csv("table.csv")' + TO_H5AD + ' converts it (delimiter="\\t" for tabs; .T if genes are rows).'
MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", Kind("a Parquet table", f'anndata.AnnData(pandas.read_parquet("t.parquet")){TO_H5AD}; cells as rows.')),
    (
        b"FEA1",
        Kind("a Feather table (version 1)", f'anndata.AnnData(pandas.read_feather("f").set_index("cell")){TO_H5AD}.'),
    ),
    (
        b"\x93NUMPY",
        Kind("a NumPy array (.npy), without gene names", "Put it into an AnnData with var_names, and write_h5ad."),
    ),
    (
        b"%%MatrixMarket",
        Kind(
            "a MatrixMarket file (.mtx), without gene and cell names",
            f'scanpy.read_10x_mtx("folder"){TO_H5AD} reads it with its barcodes and features.',
        ),
    ),
    (b"version https://git-lfs", Kind("a Git LFS pointer, not the file itself", "Fetch the file with `git lfs pull`.")),
    (
        b"MATLAB 7.3",
        Kind("a MATLAB file (v7.3)", "Export the matrix from MATLAB with gene and cell names, as a table."),
    ),
    (
        b"MATLAB 5.0",
        Kind("a MATLAB file", "scipy.io.loadmat reads it; put matrix and names into an AnnData, write_h5ad."),
    ),
    (b"\x80\x03", Kind("a Python pickle, which is never read: it can run code", "Write the cells with write_h5ad.")),
    (b"\x80\x04", Kind("a Python pickle, which is never read: it can run code", "Write the cells with write_h5ad.")),
    (b"\x80\x05", Kind("a Python pickle, which is never read: it can run code", "Write the cells with write_h5ad.")),
    (b"BZh", Kind("bzip2 data", "Decompress it with `bunzip2`, and send what is inside, if that is an h5ad file.")),
    (b"\xfd7zXZ", Kind("xz data", "Decompress it with `unxz`, and send what is inside, if that is an h5ad file.")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", "Unpack it, and send the h5ad file inside.")),
    (b"Rar!", Kind("a RAR archive", "Unpack it, and send the h5ad file inside.")),
    (b"\x04\x22\x4d\x18", Kind("LZ4 data", "Decompress it with `lz4 -d`, and send what is inside.")),
    (b"CDF\x01", Kind("a netCDF file", "Put matrix and names into an AnnData, and write_h5ad.")),
    (b"CDF\x02", Kind("a netCDF file", "Put matrix and names into an AnnData, and write_h5ad.")),
    (b"\x0e\x03\x13\x01", Kind("an HDF4 file", "Send HDF5, as anndata's write_h5ad writes it.")),
    (
        b"\xd0\xcf\x11\xe0",
        Kind(
            "an old Excel or Office file (.xls)",
            f'anndata.AnnData(pandas.read_excel("t.xls", index_col=0)){TO_H5AD}; cells as rows.',
        ),
    ),
    (b"%PDF", Kind("a PDF document", "Send the cells as h5ad.")),
    (b"\x89PNG", Kind("an image (PNG)", "Send the cells as h5ad.")),
    (b"\xff\xd8\xff", Kind("an image (JPEG)", "Send the cells as h5ad.")),
    (b"GIF8", Kind("an image (GIF)", "Send the cells as h5ad.")),
    (b"II*\0", Kind("an image (TIFF)", "Send the cells as h5ad.")),
    (b"MM\0*", Kind("an image (TIFF)", "Send the cells as h5ad.")),
    (b"SQLite format 3", Kind("an SQLite database", "Send the cells as h5ad.")),
    (b"RDX2\n", R_OBJECT),
    (b"RDX3\n", R_OBJECT),
    (b"RDA2\n", R_OBJECT),
    (b"RDA3\n", R_OBJECT),
    (b"X\n\0\0\0", R_OBJECT),
    (b"A\n2\n", R_OBJECT),
    (b"A\n3\n", R_OBJECT),
    (b"\x89HDF", _TEXT_MODE),
    (b"\xef\xbf\xbdHDF", _TEXT_MODE),
    (b"\xc2\x89HDF", _TEXT_MODE),
    (b"HDF\r\n", _TEXT_MODE),
    (b"\x09HDF", _TEXT_MODE),
)
UNKNOWN = Kind("in an unknown format", "Send an .h5ad file, as written by anndata's write_h5ad.")
