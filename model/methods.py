"""Methods that take an AnnData and write results into it: the same for the engine and for clients of a service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from scpalm.model.io.cells import Source
from scpalm.model.io.labels import LabelledBy
from scpalm.model.spec import AnnotateReadOptions, ReadOptions, RequestSpec
from scpalm.model.tasks.embed import Output

if TYPE_CHECKING:
    from anndata import AnnData

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a method.

    Attributes:
        spec: tasks and options.
        key_added: replaces the default key.
        copy: whether to return a modified copy and leave the AnnData unchanged.
        reference: labelled cells, for `annotate`. reference_by: how to read them.
    """

    spec: RequestSpec
    key_added: str | None = None
    copy: bool = False
    reference: Source | None = None
    reference_by: LabelledBy = field(default_factory=LabelledBy)


class AnnDataMethods(ABC, Generic[Answer]):
    """One method per task.

    They modify the AnnData and return None, like scanpy's ``tl`` functions. With ``copy=True`` they return a modified
    copy instead. ``key_added`` replaces the default key. For ``layer`` and ``input`` see `ReadOptions`. They raise
    InputError, which names the cell or gene at fault.
    """

    @abstractmethod
    def _run(self, adata: AnnData, call: Call) -> Answer:
        """Compute the results and write them."""

    def embed(
        self,
        adata: AnnData,
        *,
        output: Output = "embedding",
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> Answer:
        """Embed every cell; writes ``obsm["X_scpalm"]`` float32.

        Args:
            adata: the cells.
            output: ``embedding``, ``h_C`` (the paper's cell token, ``obsm["X_scpalm_h_C"]``) or ``f`` (the linear
                read-out, ``obsm["X_scpalm_f"]``).

        Example:
            >>> engine.embed(adata)
            >>> sc.pp.neighbors(adata, use_rep="X_scpalm")
        """
        return self._run(adata, Call(RequestSpec(("embed",), {"output": output}, **how), key_added, copy=copy))

    def impute(
        self,
        adata: AnnData,
        genes: Sequence[str] = (),
        *,
        scale: str = "log",
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> Answer:
        """Impute expression with the decoder, from each cell's codes: log1p CP10K, or counts with ``scale="counts"``.

        Without ``genes``, writes ``layers["scpalm_imputed"]``, with NaN for genes unknown to the model. With ``genes``,
        writes ``obsm["X_scpalm_imputed"]`` ``[B, genes]``.

        Example:
            >>> engine.impute(adata, ["CD3D", "LYZ"])
            >>> adata.obsm["X_scpalm_imputed"]
        """
        options = {"genes": tuple(genes), "scale": scale}
        return self._run(adata, Call(RequestSpec(("impute",), options, **how), key_added, copy=copy))

    def pathways(
        self,
        adata: AnnData,
        *,
        summary: bool = False,
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> Answer:
        """Find the pathway code of each token; writes ``obsm["X_scpalm_pathways"]`` ``[B, N]`` int32.

        With ``summary``, writes the share of a cell's tokens that have each code:
        ``obsm["X_scpalm_pathway_shares"]`` ``[B, K]``.

        Example:
            >>> engine.pathways(adata, summary=True)
            >>> adata.obsm["X_scpalm_pathway_shares"]
        """
        return self._run(adata, Call(RequestSpec(("pathways",), {"summary": summary}, **how), key_added, copy=copy))

    def ic50(
        self,
        adata: AnnData,
        drugs: Sequence[str] = (),
        *,
        by: str = "",
        contrast: str = "",
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> Answer:
        """Predict drug response; writes ``obsm["X_scpalm_ic50"]`` ``[B, drugs]``, ln IC50 (uM).

        A cell that expresses none of the genes the head reads has NaN. Also writes the prediction interval
        (``X_scpalm_ic50_lower``, ``_upper``); the difference to each drug's mean over the training lines, the
        percentile among these, and the rank of the drug by that (``_relative``, ``_percentile``, ``_rank``); and how
        near the cell is to the training lines (``_cell_distance``; in ``obs``, ``scpalm_ic50_domain`` and
        ``scpalm_ic50_nearest_line``). ``uns["scpalm"]`` names the drugs.

        Args:
            adata: the cells.
            drugs: names, PubChem ids or SMILES. Default: every drug in the training data.
            by: column of ``obs``: the raw counts of each group are summed. Writes ``uns["scpalm_ic50_by_{by}"]``
                instead: a dictionary with ``groups``, ``drugs`` and each of the values ``[groups, drugs]``.
            contrast: a group of ``by``: also the differences of ln IC50 to it, with their interval.

        Example:
            >>> engine.ic50(adata, ["Cisplatin"], by="cell_type")
            >>> adata.uns["scpalm_ic50_by_cell_type"]["ic50_relative"]
        """
        options: dict[str, object] = {"drugs": tuple(drugs)}
        options |= {name: value for name, value in (("by", by), ("contrast", contrast)) if value}
        return self._run(adata, Call(RequestSpec(("ic50",), options, **how), key_added, copy=copy))

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
    ) -> Answer:
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
        return self._run(adata, Call(spec, key_added, copy=copy, reference=reference, reference_by=read_reference))

    def umap(
        self, adata: AnnData, *, resolution: float = 1.0, copy: bool = False, **how: Unpack[ReadOptions]
    ) -> Answer:
        """Map the cells by their embedding; writes ``obsm["X_scpalm_umap"]`` ``[B, 2]`` and ``obs["scpalm_cluster"]``.

        The clusters are Leiden's; a higher ``resolution`` gives more. Raises LayoutError if the layout fails.

        Example:
            >>> engine.umap(adata)
            >>> sc.pl.embedding(adata, "scpalm_umap", color="scpalm_cluster")
        """
        return self._run(adata, Call(RequestSpec(("umap",), {"resolution": resolution}, **how), copy=copy))

    def integrate(
        self,
        adata: AnnData,
        batch_key: str,
        *,
        key_added: str | None = None,
        copy: bool = False,
        **how: Unpack[ReadOptions],
    ) -> Answer:
        """Embed every cell without its batch; writes ``obsm["X_scpalm_integrated"]`` ``[B, 30]`` float32.

        Each batch is centred where that makes the batches overlap; then principal components and Harmony.
        ``uns["scpalm"]["integration"]`` says what was done. The result depends on all cells of ``adata``.

        Args:
            adata: the cells.
            batch_key: column of ``adata.obs`` with the batch of each cell, such as a donor or a technology.

        Example:
            >>> engine.integrate(adata, "donor")
            >>> sc.pp.neighbors(adata, use_rep="X_scpalm_integrated")
        """
        return self._run(
            adata, Call(RequestSpec(("integrate",), {"batch_key": batch_key}, **how), key_added, copy=copy)
        )
