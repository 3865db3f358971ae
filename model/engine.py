"""The engine: cells in, results out, in one process. The service runs the same steps.

`scpalm.model.stream` has the steps: read, prepare, encode, run the tasks, finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import MissingRuntimeError
from scpalm.model.genes.declared import AUTO, Declaration
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.io.cells import Source, open_cells
from scpalm.model.io.labels import LabelledBy
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.sessions.session import Encoded, Session, open_session
from scpalm.model.spec import AnnotateReadOptions, ReadOptions, RequestSpec
from scpalm.model.stream import CellReader, Stream, embed_labelled
from scpalm.model.tasks.embed import Output

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
        runtime: ``auto``, ``onnx`` or ``torchscript``.
        threads: number of CPU threads. Default: every core available to this process.

    Raises BundleError for a damaged model, MissingRuntimeError if the runtime is not installed, and ValueError for an
    unknown device or runtime.

    Example:
        >>> engine = scpalm.load()
        >>> engine.embed(adata)
        >>> adata.obsm["X_scpalm"]
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


class Engine:
    """A model on a device. Every method returns bit for bit the numbers of the service.

    Methods that take an AnnData modify it and return None, like scanpy's ``tl`` functions. With ``copy=True`` they
    return a modified copy instead. ``key_added`` replaces the default key. For ``layer`` and ``input`` see
    `ReadOptions`. They raise InputError, which names the cell or gene at fault.

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

        Raises InputError, ParameterError or MissingPartError.
        """
        with ExitStack() as opened:
            cells = opened.enter_context(open_cells(source, layer=spec.layer))
            reader = CellReader(self.bundle, cells, spec.declaration, report)
            stream = Stream(self.bundle, self.session, reader, spec, labelled)
            opened.pop_all()
        return stream

    # --- AnnData

    def embed(
        self,
        adata: AnnData,
        *,
        output: Output = "embedding",
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> AnnData | None:
        """Embed every cell; writes ``obsm["X_scpalm"]`` float32.

        Args:
            adata: the cells.
            output: ``embedding``, ``h_C`` (the paper's cell token, ``obsm["X_scpalm_h_C"]``) or ``f`` (the linear
                read-out, ``obsm["X_scpalm_f"]``).

        Example:
            >>> engine.embed(adata)
            >>> sc.pp.neighbors(adata, use_rep="X_scpalm")
        """
        return self._add(adata, RequestSpec(("embed",), {"output": output}, **how), key_added, copy=copy)

    def impute(
        self,
        adata: AnnData,
        genes: Sequence[str] = (),
        *,
        scale: str = "log",
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> AnnData | None:
        """Impute expression with the decoder, from each cell's codes: log1p CP10K, or counts with ``scale="counts"``.

        Without ``genes``, writes ``layers["scpalm_imputed"]``, with NaN for genes unknown to the model. With ``genes``,
        writes ``obsm["X_scpalm_imputed"]`` ``[B, genes]``.

        Example:
            >>> engine.impute(adata, ["CD3D", "LYZ"])
            >>> adata.obsm["X_scpalm_imputed"]
        """
        options = {"genes": tuple(genes), "scale": scale}
        return self._add(adata, RequestSpec(("impute",), options, **how), key_added, copy=copy)

    def pathways(
        self,
        adata: AnnData,
        *,
        summary: bool = False,
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> AnnData | None:
        """Find the pathway code of each token; writes ``obsm["X_scpalm_pathways"]`` ``[B, N]`` int32.

        With ``summary``, writes the share of a cell's tokens that have each code:
        ``obsm["X_scpalm_pathway_shares"]`` ``[B, K]``.

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
        **how: Unpack[ReadOptions],
    ) -> AnnData | None:
        """Predict drug response; writes ``obsm["X_scpalm_ic50"]`` ``[B, drugs]``, ln IC50 (uM).

        A cell that expresses none of the genes the head reads has NaN. Also writes the prediction interval
        (``X_scpalm_ic50_lower``, ``X_scpalm_ic50_upper``) and the distance from the training cell lines
        (``X_scpalm_ic50_cell_distance``). ``uns["scpalm"]`` names the drugs.

        Args:
            adata: the cells.
            drugs: names, PubChem ids or SMILES. Default: every drug in the training data.

        Example:
            >>> engine.ic50(adata, ["Cisplatin"])
            >>> adata.obsm["X_scpalm_ic50"]
        """
        return self._add(adata, RequestSpec(("ic50",), {"drugs": tuple(drugs)}, **how), key_added, copy=copy)

    def annotate(
        self,
        adata: AnnData,
        reference: Source | None = None,
        *,
        label: str = "cell_type",
        vote: str | None = None,
        key_added: str = "scpalm",
        copy: bool = False,
        **how: Unpack[AnnotateReadOptions],
    ) -> AnnData | None:
        """Name the type of each cell; writes ``obs["scpalm_label"]``, 'unknown' for cells too far from the reference.

        Also writes ``scpalm_second_label``, ``scpalm_nearest_label``, ``scpalm_cell_type``, ``scpalm_probability``,
        ``scpalm_distance`` and ``scpalm_unknown`` to ``obs``; with ``vote``, ``scpalm_voted_label`` and
        ``scpalm_vote_share`` too.

        Args:
            adata: the cells to label.
            reference: labelled cells. Default: the reference of the model.
            label: column of the reference's ``obs`` that holds the labels.
            vote: column of ``adata.obs`` with groups of cells, such as clusters, that share a label by vote.
            key_added: prefix of the new columns.

        Example:
            >>> engine.annotate(adata, vote="leiden")
            >>> adata.obs["scpalm_voted_label"]
        """
        read = ReadOptions(layer=how.get("layer"), input=how.get("input", "auto"), total=how.get("total"))
        spec = RequestSpec(("annotate",), {} if vote is None else {"vote": vote}, **read)
        read_reference = LabelledBy(label, how.get("reference_layer"))
        labelled = None if reference is None else self.embed_labelled(reference, read_reference)
        return self._add(adata, spec, key_added, copy=copy, labelled=labelled)

    def umap(
        self, adata: AnnData, *, resolution: float = 1.0, copy: bool = False, **how: Unpack[ReadOptions]
    ) -> AnnData | None:
        """Map the cells by their embedding; writes ``obsm["X_scpalm_umap"]`` ``[B, 2]`` and ``obs["scpalm_cluster"]``.

        The clusters are Leiden's; a higher ``resolution`` gives more. Raises LayoutError if the layout fails.

        Example:
            >>> engine.umap(adata)
            >>> sc.pl.embedding(adata, "scpalm_umap", color="scpalm_cluster")
        """
        return self._add(adata, RequestSpec(("umap",), {"resolution": resolution}, **how), None, copy=copy)

    def embed_labelled(self, reference: Source, how: LabelledBy, progress: Progress | None = None) -> LabelledCells:
        """Embed labelled cells to annotate others with; see `scpalm.model.stream.embed_labelled`."""
        return embed_labelled(self.bundle, self.session, reference, how, progress or NoProgress())

    def _add(
        self,
        adata: AnnData,
        spec: RequestSpec,
        key_added: str | None,
        *,
        copy: bool,
        labelled: LabelledCells | None = None,
    ) -> AnnData | None:
        from scpalm.model.output.anndata_writer import AnnDataWriter

        with self.stream(adata, spec, labelled=labelled) as stream:
            writer = AnnDataWriter(stream.outputs, stream.reader.num_cells, key_added)
            for block in stream:
                writer.put(block.start, block.values)
            writer.conclude(stream.tasks)
            note = stream.note()
        target = adata.copy() if copy else adata
        writer.write_into(target, note)
        return target if copy else None
