"""What is to be computed: the same for every process, so that any of them gives the same bytes for the same rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scpalm.model.bundle import Bundle, sha256_of
from scpalm.model.errors import UserError
from scpalm.model.genes.normalize import Declared, InputReport
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer
from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.io.cells import open_cells
from scpalm.model.output.note import note_of
from scpalm.model.release import release
from scpalm.model.sessions.base import network_config
from scpalm.model.spec import RequestSpec


class ClusterError(UserError):
    """The cluster, or a result of an earlier run, is in the way; the text says what to do."""


@dataclass(frozen=True)
class Atlas:
    """An input, a model, and what was found out of both before the first row is computed.

    Attributes:
        source: h5ad file or zarr store, by a path that every worker can open. layer, declared: as for ``scpalm embed``.
        bundle: directory of the model, likewise. manifest: its checksum, so that no worker serves another.
        num_cells: B. width: D. coverage, report: of the whole input, from its genes and its first cells.
        task_rows: rows of one task, and of one chunk of the result.
        release: of scpalm, which workers must share.
    """

    source: Path
    layer: str | None
    declared: Declared
    bundle: Path
    manifest: str
    model: str
    model_version: str
    num_cells: int
    width: int
    coverage: Coverage
    report: InputReport
    task_rows: int
    release: str

    @classmethod
    def of(cls, source: Path, bundle: Bundle, spec: RequestSpec, task_rows: int) -> Atlas:
        """Look at the genes and first cells of a file. Raises InputError."""
        with open_cells(source, layer=spec.layer) as cells:
            preparer = Preparer(bundle.vocabulary, cells.genes, cells.ensembl_ids, spec.input)
            first = preparer.prepare(cells.rows(0, min(CHUNK_CELLS, cells.num_cells)))
            num_cells = cells.num_cells
        return cls(
            source=source.resolve(),
            layer=spec.layer,
            declared=spec.input,
            bundle=bundle.path.resolve(),
            manifest=sha256_of(bundle.path / "manifest.json"),
            model=bundle.name,
            model_version=bundle.version,
            num_cells=num_cells,
            width=network_config(bundle).width,
            coverage=preparer.coverage,
            report=first.input,
            task_rows=task_rows,
            release=release(),
        )

    def tasks(self) -> Iterator[tuple[int, int]]:
        """First row and the one after the last of each task."""
        for start in range(0, self.num_cells, self.task_rows):
            yield start, min(start + self.task_rows, self.num_cells)

    @property
    def identity(self) -> str:
        """Of input, model and form of the result: a run is gone on with only where this is the same."""
        # A store is a folder: its root's metadata tells when it was written.
        files = [self.source, *(self.source / name for name in ("zarr.json", ".zattrs", ".zgroup"))]
        state = next((file for file in files if file.is_file()), self.source).stat()
        parts = [str(self.source), state.st_size, state.st_mtime_ns, self.layer, self.declared, self.manifest]
        parts += [self.num_cells, self.width, self.task_rows, self.release, asdict(self.report)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def note(self) -> dict[str, object]:
        """What is recorded next to the results, as in an h5ad answer."""
        return note_of((self.model, self.model_version), self.coverage, self.report, {})
