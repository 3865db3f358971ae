"""Map the cells of a file onto an integrated reference."""

from __future__ import annotations

from pathlib import Path

from scpalm.app.offline.files import readable, refuse_same_file
from scpalm.app.offline.tables import H5AD, check_ending
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError
from scpalm.model.mapping import MapOptions, Mapping
from scpalm.model.output.note import NOTE_KEY
from scpalm.model.output.plain import plain_mapping
from scpalm.model.output.whole_file import replaced_when_whole


def map_file(source: Path, reference: Path, target: Path, engine: Engine, options: MapOptions) -> Mapping:
    """Write a copy of ``source`` with its place among the cells of ``reference``. Both are read into memory.

    Raises InputError, OSError. If it fails, ``target`` is not written.
    """
    import anndata

    check_ending(target, (H5AD,))
    with readable(source) as path, readable(reference) as reference_path:
        refuse_same_file(target, source, reference)
        cells, known = _read(anndata.read_h5ad, path), _read(anndata.read_h5ad, reference_path)
    found = engine.map_onto(cells, known, options)
    name, version = engine.bundle.name, engine.bundle.version
    note = {"model": {"name": name, "version": version}, "mapped_onto": reference.name, "keys": list(found.keys)}
    cells.uns[NOTE_KEY] = plain_mapping(note)
    with replaced_when_whole(target) as partial:
        cells.write_h5ad(partial)
    return found


def _read(read, path: Path):  # type: ignore[no-untyped-def]  # anndata is imported when it is needed
    try:
        return read(path)
    except Exception as error:  # h5py and anndata raise many kinds
        raise InputError(
            "unreadable", f"{path.name} cannot be read: {error}", hint="Check that it is a whole h5ad file."
        ) from error
