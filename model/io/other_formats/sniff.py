"""What a file is, by its content: formats that people send in place of h5ad, each with the line that converts it."""

from __future__ import annotations

import base64
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from scpalm.model.io.other_formats.magic import HDF5, MAGIC, R_OBJECT, TABLE, TEN_X_FOLDER, TO_H5AD, UNKNOWN, Kind

HEAD_BYTES = 4096
ARROW_FILE = b"ARROW1"
_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_MOST_MEMBERS = 10_000  # of an archive
_H5AD_NAME = re.compile(r"(?!.*/\._|\._).*\.(?:h5ad|h5mu|h5)", re.IGNORECASE)


def kind_of(path: Path) -> Kind:
    """What a file that is not HDF5 is, looking into zip and gzip."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(_ZIP):
        return _of_zip(path)
    if head.startswith(_GZIP):
        inside = _of_gzip_tar(head) or _kind_of_bytes(peek(head))
        hint = f"Inside: {inside.name}. {inside.hint}" if inside is not UNKNOWN else "Decompress it first."
        return R_OBJECT if inside is R_OBJECT else Kind(f"gzip data, and in it {inside.name}", hint)
    if tarfile_names := _tar_names(path, head):
        return _of_tar(tarfile_names)
    return _kind_of_bytes(head)


def peek(head: bytes) -> bytes:
    """The first bytes inside gzip data, or the bytes themselves. Never more than `HEAD_BYTES`."""
    if not head.startswith(_GZIP):
        return head
    try:
        return zlib.decompressobj(31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def is_gzip(head: bytes) -> bool:
    """Whether the bytes begin like gzip data."""
    return head.startswith(_GZIP)


def is_zip(head: bytes) -> bool:
    """Whether the bytes begin like a zip archive."""
    return head.startswith(_ZIP)


def h5ad_in_zip(path: Path) -> str | None:
    """Name of the only HDF5 file of cells in a zip archive, or None if it is not that simple."""
    names = _zip_names(path)
    found = [name for name in names if _H5AD_NAME.fullmatch(name)]
    return found[0] if len(found) == 1 else None


def _kind_of_bytes(head: bytes) -> Kind:
    if not head:
        return Kind("empty", "Send an .h5ad file, as written by anndata's write_h5ad.")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return Kind("a tar archive", TEN_X_FOLDER)
    if head.startswith(HDF5):
        return Kind("an HDF5 file", "Decompress it, and send the file itself.")
    return _of_text(head) or UNKNOWN


def _of_text(head: bytes) -> Kind | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:200].lower()
    if lower.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<")):
        return Kind("a text (HTML or XML) file", "Download the file again: this looks like an error page.")
    if text.startswith((b"{", b"[")):
        return Kind("JSON text", "Send it with Content-Type: application/json, or an .h5ad file.")
    if b"base64," in text[:200] or text.startswith(base64.b64encode(HDF5)[:10]):
        return Kind("an HDF5 file as base64 text", "Decode it (`base64 -d`), and send the bytes.")
    if b"\0" in head:
        return None
    try:
        head[: head.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        return None
    first = text.partition(b"\n")[0]
    if first.startswith(b"#1.2"):
        return Kind("a GCT table", "Remove its first two lines; then " + TABLE)
    if b"\t" in first:
        return Kind("a table as text (TSV)", TABLE)
    if b"," in first or b";" in first:
        return Kind("a table as text (CSV)", TABLE)
    return Kind("plain text", "Send an .h5ad file; if it is a table, " + TABLE)


# --- archives: only the list of names is read


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [info.filename for info in archive.infolist()[:_MOST_MEMBERS]]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _of_zip(path: Path) -> Kind:
    names = _zip_names(path)
    ends: Callable[..., bool] = lambda *suffixes: any(name.lower().endswith(suffixes) for name in names)  # noqa: E731
    tops = {name.rpartition("/")[2] for name in names}
    if tops & {".zgroup", ".zattrs", "zarr.json", ".zmetadata"}:
        return Kind("a zarr store in a zip archive", f'Unpack it, then anndata.io.read_zarr("folder"){TO_H5AD}.')
    if "[Content_Types].xml" in tops and ends("workbook.xml", "workbook.bin"):
        hint = f'anndata.AnnData(pandas.read_excel("table.xlsx", index_col=0)){TO_H5AD}; cells as rows.'
        return Kind("an Excel workbook (xlsx)", hint)
    if "[Content_Types].xml" in tops:
        return Kind("an Office document", "Send the cells as h5ad.")
    if names and all(name.endswith(".npy") for name in names):
        hint = f'anndata.AnnData(scipy.sparse.load_npz("x.npz"), var=...){TO_H5AD}, with the gene names in var.'
        return Kind("NumPy arrays (npz), without gene names", hint)
    if ends("matrix.mtx", "matrix.mtx.gz"):
        return Kind("10x's matrix folder in a zip archive", TEN_X_FOLDER)
    if len([name for name in names if _H5AD_NAME.fullmatch(name)]) > 1:
        return Kind("a zip archive with several h5ad files", "Send one of them at a time.")
    shown = ", ".join(names[:3])[:100] or "nothing readable"
    return Kind(f"a zip archive ({shown})", "Unpack it, and send the .h5ad file in it, if it has one.")


def _tar_names(path: Path, head: bytes) -> list[str]:
    if head[257:262] != b"ustar":
        return []
    return _names_in_tar(lambda: tarfile.open(path, mode="r:"))


def _names_in_tar(open_tar: Callable[[], tarfile.TarFile]) -> list[str]:
    names: list[str] = []
    try:
        with open_tar() as archive:
            for member in archive:
                names.append(member.name)
                if len(names) == 100:
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError):
        pass
    return names


def _of_tar(names: list[str]) -> Kind:
    if any("matrix.mtx" in name or "barcodes.tsv" in name for name in names):
        return Kind("10x's matrix folder in a tar archive", TEN_X_FOLDER)
    return Kind(f"a tar archive ({', '.join(names[:3])[:100]})", "Unpack it, and send the .h5ad file in it.")


def _of_gzip_tar(head: bytes) -> Kind | None:
    """What a tar archive within gzip holds, from its first bytes."""
    try:
        inside = zlib.decompressobj(31).decompress(head, 1 << 20)
    except zlib.error:
        return None
    if inside[257:262] != b"ustar":
        return None
    return _of_tar(_names_in_tar(lambda: tarfile.open(fileobj=io.BytesIO(inside), mode="r:")))
