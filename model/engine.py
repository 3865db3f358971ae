"""The engine: cells in, results out, in one process. The service runs the same steps.

`scpalm.model.stream` has the steps: read, prepare, encode, run the tasks, finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotate import Annotation, Reference
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError, MissingRuntimeError
from scpalm.model.genes.declared import AUTO, Declaration
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.io.cells import Source, open_cells
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.sessions.session import Encoded, Session, open_session
from scpalm.model.spec import ReadOptions, RequestSpec
from scpalm.model.stream import CellReader, Stream
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

    def stream(self, source: Source, spec: RequestSpec, *, report: InputReport | None = None) -> Stream:
        """Compute results for a file, a zarr store or an AnnData block by block; see `Stream`.

        Args:
            source: where the cells come from.
            spec: tasks and options.
            report: how the first cells of the source were classified. Needed to start elsewhere, with `Stream.rows`.

        Raises InputError, ParameterError or MissingPartError.
        """
        with ExitStack() as opened:
            cells = opened.enter_context(open_cells(source, layer=spec.layer))
            stream = Stream(self.bundle, self.session, CellReader(self.bundle, cells, spec.declaration, report), spec)
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
        reference: Source,
        *,
        label: str = "cell_type",
        key_added: str = "scpalm",
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> AnnData | None:
        """Label each cell by the nearest labelled cells; writes ``obs["scpalm_label"]``, 'unknown' if none is close.

        Also writes ``scpalm_nearest_label``, ``scpalm_probability`` and ``scpalm_distance`` to ``obs``.

        Args:
            adata: the cells to label.
            reference: labelled cells, read from X.
            label: column of the reference's ``obs`` that holds the labels.
            key_added: prefix of the new columns.

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
        """Label the cells of ``source`` by the nearest cells of ``reference``; also returns the names of the cells.

        Args:
            source: the cells to label.
            reference: labelled cells, read from X.
            label: column of the reference's ``obs`` that holds the labels.
            spec: how to read ``source``.
            progress: receives the number of finished cells.

        Raises InputError.
        """
        spec, progress = spec or RequestSpec(()), progress or NoProgress()
        with self.read(reference) as labelled, self.read(source, layer=spec.layer, declared=spec.declaration) as cells:
            labels = labelled.source.obs_column(label)
            if labels is None:
                name = Path(reference).name if isinstance(reference, Path | str) else "The reference"
                raise InputError(
                    "no-label-column",
                    f"{name} has no column '{label}' in obs.",
                    hint="Pass the name of the column that holds the labels (--label).",
                    field=label,
                )
            progress.start(labelled.num_cells + cells.num_cells)
            known = Reference(self._embed_all(labelled, progress)[1], [str(value) for value in labels])
            names, embedding = self._embed_all(cells, progress)
        return names, known.annotate(embedding)

    def _embed_all(self, reader: CellReader, progress: Progress) -> tuple[list[str], NDArray[np.float32]]:
        """Names ``[B]`` and embedding ``[B, D]`` of all cells, in memory."""
        names: list[str] = []
        parts: list[NDArray[np.float32]] = []
        for prepared in reader:
            parts.append(self.encode(prepared, tokens=False).embedding)
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
