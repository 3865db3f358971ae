"""The engine: cells in, results out, in one process. The service runs the same steps.

`scpalm.model.stream` has the steps: read, prepare, encode, run the tasks, finish.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import MissingRuntimeError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import AUTO, Declaration
from scpalm.model.io.cells import Source, open_cells
from scpalm.model.io.grouped import GroupedCells
from scpalm.model.io.labels import LabelledBy
from scpalm.model.mapping import MapOptions, Mapping, map_cells
from scpalm.model.methods import AnnDataMethods, Call
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.sessions.session import Encoded, Session, open_session
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import CellReader, Stream, embed_labelled

if TYPE_CHECKING:
    from anndata import AnnData


def load(
    bundle: Path | str | Bundle | None = None,
    device: str = "auto",
    *,
    runtime: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Open a model.

    Args:
        bundle: the model's directory, or an open `Bundle`. Default: the model that ships with the package.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``.
        runtime: ``auto``, ``onnx``, ``torch`` or ``torchscript``; see `open_session`.
        threads: number of CPU threads. Default: every core available to this process.

    Returns:
        The engine, whose methods take an AnnData. Keep it: opening a model takes a second, calling it does not.

    Raises:
        BundleError: a file of the model is damaged or missing.
        MissingRuntimeError: the runtime is not installed; the text has the command that installs it.
        ValueError: the device or the runtime is unknown.

    Example:
        >>> engine = scpalm.load()
        >>> engine.embed(adata)
        >>> adata.obsm["X_scpalm"].shape
        (100, 384)
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle or DEFAULT_BUNDLE)
    return Engine(opened, open_runtime(opened, device=device, runtime=runtime, threads=threads))


def open_runtime(bundle: Bundle, *, device: str = "auto", runtime: str = "auto", threads: int | None = None) -> Session:
    """Open a session. Raises MissingRuntimeError, with the command that installs the runtime, if it is missing."""
    try:
        return open_session(bundle, runtime=runtime, device=device, threads=threads)
    except ModuleNotFoundError as error:
        extra = {"onnxruntime": "cpu", "torch": "gpu"}.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingRuntimeError(
            f"The runtime for this model is not installed. Install it with: pip install 'scpalm[{extra}]'"
        ) from error


class Engine(AnnDataMethods["AnnData | None"]):
    """A model on a device, from `scpalm.load`. Its numbers are those of the service, bit for bit.

    Attributes:
        bundle: the model.
        session: runs the model on a device.
    """

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.session = session

    # --- steps

    def read(
        self,
        source: Source,
        *,
        layer: str | None = None,
        declared: Declaration = AUTO,
        totals_column: str | None = None,
    ) -> CellReader:
        """Open a file, a zarr store or an AnnData and align its genes with the model's. Raises InputError."""
        with ExitStack() as opened:
            cells = opened.enter_context(open_cells(source, layer=layer, totals_column=totals_column))
            reader = CellReader(self.bundle, cells, declared)
            opened.pop_all()
        return reader

    def encode(self, prepared: Prepared, *, tokens: bool = True) -> Encoded:
        """Run the network once: the embedding of prepared cells, and with ``tokens`` h_C and pathway codes."""
        return self.session.encode(prepared.rows, tokens=tokens)

    def stream(
        self,
        source: Source,
        spec: RequestSpec,
        *,
        report: InputReport | None = None,
        labelled: LabelledCells | None = None,
    ) -> Stream:
        """Compute results for a file, a zarr store or an AnnData block by block; see `Stream`.

        Args:
            source: where the cells come from.
            spec: tasks and options.
            report: how the first cells of the source were classified. Needed to start elsewhere, with `Stream.rows`.
            labelled: cells to annotate with, from `embed_labelled`. Default: the reference of the model.

        Returns:
            A context manager and iterator of blocks: ``block.start`` is the first cell, ``block.values`` has an array
            for each output, such as ``block.values["embed"]`` float32 ``[cells of the block, 384]``.

        Raises:
            InputError: the cells cannot be read, or an option is wrong.
            MissingPartError: the model lacks a part that a task needs.

        Example:
            >>> with engine.stream("cells.h5ad", scpalm.RequestSpec(("embed",))) as stream:
            ...     sum(len(block.values["embed"]) for block in stream)
            100
        """
        with ExitStack() as opened:
            cells = opened.enter_context(open_cells(source, layer=spec.layer))
            if spec.sum_by:
                cells = GroupedCells(cells, spec.sum_by, spec.declaration)
            reader = CellReader(self.bundle, cells, spec.declaration, report)
            stream = Stream(self.bundle, self.session, reader, spec, labelled)
            opened.pop_all()
        return stream

    def embed_labelled(self, reference: Source, how: LabelledBy, progress: Progress | None = None) -> LabelledCells:
        """Embed labelled cells to annotate others with; see `scpalm.model.stream.embed_labelled`."""
        return embed_labelled(self.bundle, self.session, reference, how, progress or NoProgress())

    def map_onto(self, cells: AnnData, reference: AnnData, options: MapOptions | None = None) -> Mapping:
        """Map cells onto an integrated AnnData, which does not change.

        Args:
            cells: the new cells.
            reference: cells that `integrate` has embedded.
            options: batches of the new cells, and the label that they take over.

        Returns:
            What was written to ``cells``: ``obsm["X_scpalm_integrated"]`` float32 ``[cells, 30]`` in the space of the
            reference, ``obs["scpalm_reference_distance"]`` float32 (above 2: the reference lacks such cells), and with
            ``options.label`` ``obs["scpalm_reference_label"]`` and ``obs["scpalm_reference_share"]``.

        Raises:
            InputError: the reference was not integrated, a column is missing, or the cells cannot be read.

        Example:
            >>> mapping = engine.map_onto(new, integrated, MapOptions(label="cell_type"))
            >>> new.obs["scpalm_reference_label"].dtype.name
            'category'
        """
        return map_cells(self.bundle, self.session, cells, reference, options or MapOptions())

    def _run(self, adata: AnnData, call: Call) -> AnnData | None:
        from scpalm.model.output.anndata_writer import AnnDataWriter

        labelled = None if call.reference is None else self.embed_labelled(call.reference, call.reference_by)
        with self.stream(adata, call.spec, labelled=labelled) as stream:
            writer = AnnDataWriter(stream.outputs, stream.reader.num_cells, call.key_added)
            for block in stream:
                writer.put(block.start, block.values)
            writer.conclude(stream.tasks)
            note, source = stream.note(), stream.reader.source
        target = adata.copy() if call.copy else adata
        if isinstance(source, GroupedCells):
            key = call.key_added or f"scpalm_{call.spec.tasks[0]}_by_{call.spec.sum_by}"
            writer.write_groups_into(target, note, key, source.names)
        else:
            writer.write_into(target, note)
        return target if call.copy else None
