"""The description of a run, shared by all processes, so that each computes the same bytes for the same rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scpalm.model.adapter.adapter import served_width
from scpalm.model.bundle import Bundle, Identity, sha256_of
from scpalm.model.errors import UserError
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.io.cells import open_cells
from scpalm.model.output.note import note_of
from scpalm.model.release import release
from scpalm.model.sessions.base import network_config
from scpalm.model.spec import RequestSpec


class ClusterError(UserError):
    """The cluster or the result of an earlier run prevents this run. The message says what to do."""


@dataclass(frozen=True)
class Atlas:
    """An input and a model, with everything that must be known before the first row is computed.

    Attributes:
        source: h5ad file or zarr store, at a path that every worker can open.
        layer: matrix to read; None for X.
        declared: declared type of the values.
        bundle: folder of the model, at a path that every worker can open.
        manifest: checksum of the manifest; workers refuse a different model.
        model: name, version and checksum of the model.
        num_cells: number of cells (B).
        width: width of the embedding.
        coverage: how many genes of the input are in the vocabulary.
        report: type of the values, detected from the first cells.
        task_rows: rows per task and per chunk of the result.
        release: version of scpalm, which all workers must have.
    """

    source: Path
    layer: str | None
    declared: Declaration
    bundle: Path
    manifest: str
    model: Identity
    num_cells: int
    width: int
    coverage: Coverage
    report: InputReport
    task_rows: int
    release: str

    @classmethod
    def of(cls, source: Path, bundle: Bundle, spec: RequestSpec, task_rows: int) -> Atlas:
        """Read the genes and the first cells of a file. Raises InputError."""
        with open_cells(source, layer=spec.layer) as cells:
            preparer = Preparer(bundle.vocabulary, cells.columns, spec.declaration)
            first = preparer.prepare(cells.rows(0, min(CHUNK_CELLS, cells.num_cells)))
            num_cells = cells.num_cells
        config = network_config(bundle)
        return cls(
            source=source.resolve(),
            layer=spec.layer,
            declared=spec.declaration,
            bundle=bundle.path.resolve(),
            manifest=sha256_of(bundle.path / "manifest.json"),
            model=bundle.identity,
            num_cells=num_cells,
            width=served_width(bundle, config.components + config.view_width),
            coverage=preparer.coverage,
            report=first.input,
            task_rows=task_rows,
            release=release(),
        )

    def tasks(self) -> Iterator[tuple[int, int]]:
        """Yield the rows of each task, as start and (exclusive) stop."""
        for start in range(0, self.num_cells, self.task_rows):
            yield start, min(start + self.task_rows, self.num_cells)

    @property
    def identity(self) -> str:
        """Hash of the input, the model and the layout of the result. Only a run with the same identity is continued."""
        # A zarr store is a folder, so use the metadata at its root to detect changes.
        files = [self.source, *(self.source / name for name in ("zarr.json", ".zattrs", ".zgroup"))]
        state = next((file for file in files if file.is_file()), self.source).stat()
        parts = [str(self.source), state.st_size, state.st_mtime_ns, self.layer, self.declared, self.manifest]
        parts += [self.num_cells, self.width, self.task_rows, self.release, asdict(self.report)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def note(self) -> dict[str, object]:
        """The note to store with the results, as in an h5ad response."""
        return note_of(self.model, self.coverage, self.report, {})
