"""The engine: cells in, results out, in this process. The service is a shell around the same steps.

The steps are in `scpalm.model.stream`: read, prepare, encode, run the tasks, finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotate import Annotation, Reference
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError, MissingRuntimeError
from scpalm.model.genes.normalize import Declared, InputReport
from scpalm.model.genes.prepare import Prepared
from scpalm.model.io.cells import Source, open_cells
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.sessions.session import Encoded, Session, open_session
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import CellReader, Stream

if TYPE_CHECKING:
    from anndata import AnnData


class ReadOptions(TypedDict, total=False):
    """How to read an AnnData.

    ``layer``: None for X, ``raw``, or a layer's name. ``input``: ``counts`` or ``log``; default: found out.
    """

    layer: str | None
    input: Declared


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
            return Stream(self.bundle, self.session, CellReader(self.bundle, cells, spec.input, report), spec)
        except BaseException:
            cells.__exit__(None, None, None)
            raise

    # --- AnnData

    def embed(
        self, adata: AnnData, *, key_added: str | None = None, copy: bool = False, **how: Unpack[ReadOptions]
    ) -> AnnData | None:
        """Embed every cell: ``obsm["X_scpalm"]`` ``[B, D]`` float32.

        Args:
            key_added: another key. copy: return a copy instead of writing into ``adata``.
            how: see `ReadOptions`.

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
        **how: Unpack[ReadOptions],
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
        self,
        adata: AnnData,
        *,
        summary: bool = False,
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
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
        **how: Unpack[ReadOptions],
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
        **how: Unpack[ReadOptions],
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
