"""From a source of cells to results, block by block: read, prepare, encode, run the tasks, finish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotation.labelled import LabelledCells, choose_cells, naming
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.prepare import CHUNK_CELLS, Prepared, Preparer
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import AUTO, Declaration
from scpalm.model.io.cells import CellSource, Source, column_of, open_cells
from scpalm.model.io.labels import Categories, LabelledBy
from scpalm.model.output.note import note_of
from scpalm.model.progress import Progress
from scpalm.model.sessions.session import Session
from scpalm.model.spec import RequestSpec, metadata_of, outputs_of
from scpalm.model.tasks.task import BoundTask, OutputSpec, TaskContext, Values

# Limit on the values of one task in memory: a cell's imputed genes are a hundred times larger than its embedding.
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Block:
    """Results of some cells of a source.

    Attributes:
        start: position of the first cell in the source.
        cells: names of the cells.
        values: ``[cells, width]`` for each output, by name.
    """

    start: int
    cells: list[str]
    values: Mapping[str, Values]


class CellReader:
    """Reads the cells of a source in the model's gene order; a context manager.

    Attributes:
        source: the open source.
        preparer: aligns and normalises its cells.
        num_cells: B.

    The constructor raises InputError if the genes are unusable; reading raises it for a faulty value.
    """

    def __init__(
        self, bundle: Bundle, source: CellSource, declared: Declaration = AUTO, report: InputReport | None = None
    ) -> None:
        self.source = source
        self.preparer = Preparer(bundle.vocabulary, source.columns, declared, report)
        self.num_cells = source.num_cells

    def __enter__(self) -> CellReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.source.__exit__(kind, error, traceback)

    @property
    def coverage(self) -> Coverage:
        return self.preparer.coverage

    def __iter__(self) -> Iterator[Prepared]:
        """All cells, CHUNK_CELLS at a time. The first chunk decides whether the values are counts or logs."""
        for chunk in self.source.chunks(CHUNK_CELLS):
            yield self.preparer.prepare(chunk)

    def rows(self, start: int, stop: int) -> Iterator[Prepared]:
        """Cells ``start`` to ``stop``, CHUNK_CELLS at a time. Needs the input report of the first chunk."""
        for first in range(start, stop, CHUNK_CELLS):
            yield self.preparer.prepare(self.source.rows(first, min(first + CHUNK_CELLS, stop)))


class Stream(AbstractContextManager["Stream"]):
    """Results of a source, block by block. Memory use does not grow with the number of cells.

    Attributes:
        reader: reads the cells.
        tasks: the tasks. Those with ``concludes`` must conclude when all blocks have been computed.
        outputs: the outputs that every block holds.

    Example:
        >>> with engine.stream("atlas.h5ad", RequestSpec(("embed",))) as stream:
        ...     for block in stream:
        ...         out[block.start : block.start + len(block.cells)] = block.values["embed"]
    """

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        reader: CellReader,
        spec: RequestSpec,
        labelled: LabelledCells | None = None,
    ) -> None:
        self.reader = reader
        self._bundle = bundle
        self._session = session
        source = reader.source
        context = TaskContext(
            bundle,
            session.info,
            reader.num_cells,
            reader.preparer.file_target,
            source.tables(spec.members),
            {name: column_of(source, name) for name in (*spec.obs_columns, *filter(None, [spec.sum_by]))},
            labelled,
        )
        self.tasks = spec.bind(context)
        self._report: InputReport | None = None
        self.outputs: tuple[OutputSpec, ...] = outputs_of(self.tasks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reader.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Block]:
        return self._blocks(self.reader, 0)

    def rows(self, start: int, stop: int) -> Iterator[Block]:
        """Results of cells ``start`` to ``stop``."""
        return self._blocks(self.reader.rows(start, stop), start)

    def _blocks(self, parts: Iterator[Prepared] | CellReader, start: int) -> Iterator[Block]:
        for prepared in parts:
            self._report = prepared.input
            yield from compute(self._session, self.tasks, prepared, start)
            start += len(prepared.rows)

    def note(self) -> dict[str, object]:
        """The note that is stored with the values. Complete once the first block has been computed."""
        return note_of(self._bundle.identity, self.reader.coverage, self._report, metadata_of(self.tasks))


def compute(session: Session, bound: Sequence[BoundTask], prepared: Prepared, first: int) -> Iterator[Block]:
    """Results of prepared cells, in blocks that bound the memory of the widest output.

    ``first``: position in the source of the first prepared cell.
    """
    rows = bound[0].select_rows(prepared)
    encoded = session.encode(rows, tokens=any(task.needs_tokens for task in bound))
    widest = max(output.width for task in bound for output in task.outputs)
    step = max(1, _BLOCK_BYTES // (4 * widest))
    for start in range(0, len(encoded), step):
        stop = min(start + step, len(encoded))
        part, cells = encoded.slice(start, stop), prepared.slice(start, stop)
        values: dict[str, Values] = {}
        for task in bound:
            values |= task.finish(task.run(session, part, first + start), cells)
        yield Block(first + start, cells.cells, values)


def embed_labelled(
    bundle: Bundle, session: Session, reference: Source, how: LabelledBy, progress: Progress
) -> LabelledCells:
    """Embed labelled cells to annotate others with: at most 300 of a label and 3,000 in all.

    Args:
        bundle: the model. session: runs it.
        reference: file, zarr store or AnnData with labelled cells.
        how: the column of ``obs`` that holds the labels, and the matrix.
        progress: receives the number of finished cells.

    Raises InputError, which names the file.
    """
    with naming(reference), open_cells(reference, layer=how.layer) as source:
        labels = column_of(source, how.label)
        chosen = choose_cells(labels)
        if not len(chosen):
            raise InputError(
                "no-labels",
                f"No cell has a label in the column '{how.label}' of obs.",
                hint="Name another column of labels.",
                field=how.label,
            )
        parts: list[NDArray[np.float32]] = []
        start = 0
        for prepared in CellReader(bundle, source):
            stop = start + len(prepared.rows)
            inside = chosen[(chosen >= start) & (chosen < stop)] - start
            if len(inside):
                parts.append(session.encode(prepared.select(inside).rows, tokens=False).embedding)
            progress.advance(len(prepared.rows))
            start = stop
    return LabelledCells(np.concatenate(parts), Categories(labels.names, labels.codes[chosen]))
