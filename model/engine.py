"""The engine: cells in, results out, in this process. The service is a shell around the same steps.

open_cells -> Preparer -> select_rows -> session.encode -> task.run -> task.finish
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotate import Annotation, Reference
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError, MissingRuntimeError
from scpalm.model.genes.normalize import Declared, InputReport
from scpalm.model.genes.prepare import CHUNK_CELLS, Prepared, Preparer
from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.io.cells import CellSource, Source, open_cells
from scpalm.model.output.note import note_of
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.sessions.session import Encoded, Session, open_session
from scpalm.model.spec import RequestSpec, metadata_of, outputs_of
from scpalm.model.tasks.task import BoundTask, OutputSpec, TaskContext, Values

if TYPE_CHECKING:
    from anndata import AnnData

# Values of one task computed at once: a cell's imputed genes are a hundred times its embedding.
_BLOCK_BYTES = 64 << 20


def load(
    bundle: Path | str | Bundle | None = None,
    device: str = "auto",
    *,
    runtime: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Open a model.

    Args:
        bundle: directory of the model, or an opened one; default: the model in the package.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``. runtime: ``auto``, ``onnx`` or ``torchscript``.
        threads: on a CPU; default: every core that this process may use.

    Raises BundleError for a damaged model, MissingRuntimeError where the runtime is not installed, ValueError for an
    unknown device or runtime.

    Example:
        >>> engine = scpalm.load()
        >>> engine.embed(adata)
        >>> adata.obsm["X_scpalm"]
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle or DEFAULT_BUNDLE)
    return Engine(opened, open_runtime(opened, device=device, runtime=runtime, threads=threads))


def open_runtime(bundle: Bundle, *, device: str = "auto", runtime: str = "auto", threads: int | None = None) -> Session:
    """A session; a missing runtime raises MissingRuntimeError, which says how to install it."""
    try:
        return open_session(bundle, runtime=runtime, device=device, threads=threads)
    except ModuleNotFoundError as error:
        extra = {"onnxruntime": "cpu", "torch": "gpu"}.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingRuntimeError(
            f"The model's runtime is not installed. Install it with: pip install 'scpalm[{extra}]'"
        ) from error


@dataclass(frozen=True, eq=False)
class Block:
    """Results of some cells of a source.

    Attributes:
        start: position of the first cell. cells: names. values: ``[cells, width]`` of each output, by name.
    """

    start: int
    cells: list[str]
    values: Mapping[str, Values]


class CellReader:
    """The cells of a source as the model reads them; a context manager.

    Attributes:
        source: the opened source. preparer: what brings its cells into the model's genes. num_cells: B.

    Raises InputError from the constructor (genes) and while cells are read.
    """

    def __init__(
        self, bundle: Bundle, source: CellSource, declared: Declared = "auto", report: InputReport | None = None
    ) -> None:
        self.source = source
        self.preparer = Preparer(bundle.vocabulary, source.genes, source.ensembl_ids, declared, report)
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
        """All cells, CHUNK_CELLS at a time: the first chunk decides what the values are."""
        for chunk in self.source.chunks(CHUNK_CELLS):
            yield self.preparer.prepare(chunk)

    def rows(self, start: int, stop: int) -> Iterator[Prepared]:
        """Cells ``start`` to ``stop``, CHUNK_CELLS at a time. Needs a report of the source's first cells."""
        for first in range(start, stop, CHUNK_CELLS):
            yield self.preparer.prepare(self.source.rows(first, min(first + CHUNK_CELLS, stop)))


class Stream(AbstractContextManager["Stream"]):
    """Results of a source, block by block; memory does not grow with the number of cells.

    Attributes:
        reader: of the cells. outputs: what every block holds.

    Example:
        >>> with engine.stream("atlas.h5ad", RequestSpec(("embed",))) as stream:
        ...     for block in stream:
        ...         out[block.start : block.start + len(block.cells)] = block.values["embed"]
    """

    def __init__(self, engine: Engine, reader: CellReader, spec: RequestSpec) -> None:
        self.reader = reader
        self._engine = engine
        context = TaskContext(
            engine.bundle,
            engine.session.info,
            reader.num_cells,
            reader.preparer.target,
            reader.source.tables(spec.members),
        )
        self._bound = spec.bind(context)
        self._report: InputReport | None = None
        self.outputs: tuple[OutputSpec, ...] = outputs_of(self._bound)

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
            yield from compute(self._engine.session, self._bound, prepared, start)
            start += len(prepared.rows)

    def note(self) -> dict[str, object]:
        """What is recorded next to the values; complete once the first block is there."""
        bundle = self._engine.bundle
        return note_of((bundle.name, bundle.version), self.reader.coverage, self._report, metadata_of(self._bound))


def compute(session: Session, bound: Sequence[BoundTask], prepared: Prepared, first: int) -> Iterator[Block]:
    """Results of prepared cells, in blocks small enough for the widest task. ``first``: position of their first."""
    encoded = session.encode(bound[0].select_rows(prepared))
    widest = max(output.width for task in bound for output in task.outputs)
    step = max(1, _BLOCK_BYTES // (4 * widest))
    for start in range(0, len(encoded), step):
        stop = min(start + step, len(encoded))
        part, cells = encoded.slice(start, stop), prepared.slice(start, stop)
        values: dict[str, Values] = {}
        for task in bound:
            values |= task.finish(task.run(session, part, first + start), cells)
        yield Block(first + start, cells.cells, values)


class Engine:
    """A model on a device. Every method gives the same numbers as the service, to the bit.

    Methods that take an AnnData write into it as scanpy's ``tl`` functions do, and return None; with ``copy=True`` they
    leave it alone and return a copy. ``layer`` and ``input`` say which matrix to read and what its values are.

    Attributes:
        bundle: the model. session: runs it.
    """

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.session = session

    # --- steps

    def read(
        self, source: Source, *, layer: str | None = None, input: Declared = "auto", totals_column: str | None = None
    ) -> CellReader:
        """The cells of a file, a store or an AnnData in the model's genes. Raises InputError."""
        return CellReader(self.bundle, open_cells(source, layer=layer, totals_column=totals_column), input)

    def encode(self, prepared: Prepared) -> Encoded:
        """One pass of the network: embedding and pathway codes of prepared cells."""
        return self.session.encode(prepared.rows)

    def stream(self, source: Source, spec: RequestSpec, *, report: InputReport | None = None) -> Stream:
        """Results of a file, a store or an AnnData, block by block; see `Stream`.

        ``report``: what the first cells of the source were taken for, to start further on with `Stream.rows`.

        Raises InputError, ParameterError, MissingPartError.
        """
        cells = open_cells(source, layer=spec.layer)
        try:
            return Stream(self, CellReader(self.bundle, cells, spec.input, report), spec)
        except BaseException:
            cells.__exit__(None, None, None)
            raise

    # --- AnnData

    def embed(self, adata: AnnData, *, key_added: str | None = None, copy: bool = False, **how: Any) -> AnnData | None:
        """Embed every cell: ``obsm["X_scpalm"]`` ``[B, D]`` float32.

        Args:
            key_added: another key. copy: return a copy instead of writing into ``adata``.
            how: ``layer``, ``input`` (see `RequestSpec`).

        Raises InputError naming the cell or gene at fault.

        Example:
            >>> engine.embed(adata)
            >>> sc.pp.neighbors(adata, use_rep="X_scpalm")
        """
        return self._add(adata, RequestSpec(("embed",), **how), key_added, copy=copy)

    def impute(
        self,
        adata: AnnData,
        genes: Sequence[str] = (),
        *,
        scale: str = "log",
        key_added: str | None = None,
        copy: bool = False,
        **how: Any,
    ) -> AnnData | None:
        """Expression as the decoder reads it from each cell's codes, log1p CP10K, or counts with ``scale="counts"``.

        Without ``genes``: ``layers["scpalm_imputed"]``, NaN for genes that the model does not know. With ``genes``:
        ``obsm["X_scpalm_imputed"]`` ``[B, genes]``.

        Example:
            >>> engine.impute(adata, ["CD3D", "LYZ"])
            >>> adata.obsm["X_scpalm_imputed"]
        """
        options = {"genes": tuple(genes), "scale": scale}
        return self._add(adata, RequestSpec(("impute",), options, **how), key_added, copy=copy)

    def pathways(
        self, adata: AnnData, *, summary: bool = False, key_added: str | None = None, copy: bool = False, **how: Any
    ) -> AnnData | None:
        """Pathway code of each token: ``obsm["X_scpalm_pathways"]`` ``[B, N]`` int32.

        With ``summary``: share of tokens that have each code, ``obsm["X_scpalm_pathway_shares"]`` ``[B, K]``.

        Example:
            >>> engine.pathways(adata, summary=True)
            >>> adata.obsm["X_scpalm_pathway_shares"]
        """
        return self._add(adata, RequestSpec(("pathways",), {"summary": summary}, **how), key_added, copy=copy)

    def ic50(
        self,
        adata: AnnData,
        drugs: Sequence[str] = (),
        *,
        key_added: str | None = None,
        copy: bool = False,
        **how: Any,
    ) -> AnnData | None:
        """ln IC50 (uM) of each cell and drug: ``obsm["X_scpalm_ic50"]`` ``[B, drugs]``, NaN where there is no answer.

        ``obsm["X_scpalm_ic50_lower"]`` and ``_upper`` are the interval, ``_cell_distance`` the distance from the
        training lines; ``uns["scpalm"]`` names the drugs.

        Args:
            drugs: names, PubChem ids or SMILES; default: every drug of the training data.

        Example:
            >>> engine.ic50(adata, ["Cisplatin"])
            >>> adata.obsm["X_scpalm_ic50"]
        """
        return self._add(adata, RequestSpec(("ic50",), {"drugs": tuple(drugs)}, **how), key_added, copy=copy)

    def annotate(
        self,
        adata: AnnData,
        reference: Source,
        *,
        label: str = "cell_type",
        key_added: str = "scpalm",
        copy: bool = False,
        **how: Any,
    ) -> AnnData | None:
        """Label cells by the nearest labelled ones: ``obs["scpalm_label"]``, 'unknown' where none is near enough.

        ``obs`` also gets ``scpalm_nearest_label``, ``scpalm_probability`` and ``scpalm_distance``.

        Args:
            reference: labelled cells, read from X. label: the column of its ``obs``. key_added: start of the columns.

        Example:
            >>> engine.annotate(adata, "atlas.h5ad", label="cell_type")
            >>> adata.obs["scpalm_label"]
        """
        import pandas as pd

        _, found = self.transfer_labels(adata, reference, label=label, spec=RequestSpec((), **how))
        target = adata.copy() if copy else adata
        target.obs[f"{key_added}_label"] = pd.Categorical(found.label.astype(str))
        target.obs[f"{key_added}_nearest_label"] = pd.Categorical(found.nearest_label.astype(str))
        target.obs[f"{key_added}_probability"] = found.probability
        target.obs[f"{key_added}_distance"] = found.distance
        return target if copy else None

    def transfer_labels(
        self,
        source: Source,
        reference: Source,
        *,
        label: str = "cell_type",
        spec: RequestSpec | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[str], Annotation]:
        """Labels of ``source``'s cells from the nearest cells of ``reference``, with the names of the cells.

        Args:
            reference: labelled cells, read from X. label: the column of its ``obs``. spec: how to read ``source``.

        Raises InputError.
        """
        spec, progress = spec or RequestSpec(()), progress or NoProgress()
        with self.read(reference) as labelled, self.read(source, layer=spec.layer, input=spec.input) as cells:
            labels = labelled.source.obs_column(label)
            if labels is None:
                name = Path(reference).name if isinstance(reference, Path | str) else "The reference"
                raise InputError(
                    "no-label-column",
                    f"{name} has no column '{label}' in obs.",
                    mend="Name the column that holds its labels with --label.",
                    field=label,
                )
            progress.start(labelled.num_cells + cells.num_cells)
            known = Reference(self._embed_all(labelled, progress)[1], [str(value) for value in labels])
            names, embedding = self._embed_all(cells, progress)
        return names, known.annotate(embedding)

    def _embed_all(self, reader: CellReader, progress: Progress) -> tuple[list[str], NDArray[np.float32]]:
        """Names and ``[B, D]`` embedding of all cells, in memory."""
        names: list[str] = []
        parts: list[NDArray[np.float32]] = []
        for prepared in reader:
            parts.append(self.encode(prepared).embedding)
            names += prepared.cells
            progress.advance(len(prepared.rows))
        return names, np.concatenate(parts)

    def _add(self, adata: AnnData, spec: RequestSpec, key_added: str | None, *, copy: bool) -> AnnData | None:
        from scpalm.model.output.anndata_writer import AnnDataWriter

        with self.stream(adata, spec) as stream:
            writer = AnnDataWriter(stream.outputs, stream.reader.num_cells, key_added)
            for block in stream:
                writer.put(block.start, block.values)
            note = stream.note()
        target = adata.copy() if copy else adata
        writer.write_into(target, note)
        return target if copy else None
