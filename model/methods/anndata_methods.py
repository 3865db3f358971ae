"""Methods that take an AnnData and write results into it: the same for the engine and for clients of a service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from scpalm.model.io.cells import Source
from scpalm.model.io.labels import LabelledBy
from scpalm.model.methods.call import Call
from scpalm.model.spec import AnnotateReadOptions, ReadOptions, RequestSpec
from scpalm.model.tasks.embed import Output

if TYPE_CHECKING:
    from anndata import AnnData

Answer = TypeVar("Answer")


class AnnDataMethods(ABC, Generic[Answer]):
    """One method per task.

    Like scanpy's ``tl``, they modify the AnnData. Each writes ``uns["scpalm"]``, a dict: model, checksum and
    release, ``coverage`` of genes, ``input`` (what the values were read as), ``warnings``, keys and columns written.
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
        """Embed every cell.

        Args:
            adata: the cells, with counts in ``X``, ``raw`` or a layer.
            output: ``embedding``, ``h_C`` (the cell token of the paper) or ``f`` (the linear read-out).
            key_added: key of ``obsm`` to use instead of the default.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``obsm["X_scpalm"]`` float32 ``[cells, 384]``: the embedding; each of its two parts has length 1.
            - or ``obsm["X_scpalm_h_C"]`` float32 ``[cells, 96]``, or ``obsm["X_scpalm_f"]`` float32 ``[cells, 256]``.

        Raises:
            InputError: the cells cannot be read with certainty; the text names the gene, cell or option at fault.

        Example:
            >>> engine.embed(adata)
            >>> adata.obsm["X_scpalm"].shape
            (100, 384)
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
        """Impute expression with the decoder, from the pathway codes and the linear read-out of each cell.

        Imputed values are smoother than measured ones. Look at single genes with them; do not cluster or test on them.

        Args:
            adata: the cells.
            genes: symbols, aliases or Ensembl ids, which the file need not have. Default: every gene of the file.
            scale: ``log`` for ``log1p`` of counts per 10,000, or ``counts`` at the sequencing depth of the cell.
            key_added: key of ``layers``, or of ``obsm`` if ``genes`` are given, to use instead of the default.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``layers["scpalm_imputed"]`` float32 ``[cells, genes of adata]``, without ``genes``; NaN: unknown genes.
            - ``obsm["X_scpalm_imputed"]`` float32 ``[cells, genes]``, with ``genes``, in the order given.

        Raises:
            InputError: the cells cannot be read, or the model does not know a gene.

        Example:
            >>> engine.impute(adata, ["CD3D", "LYZ"])
            >>> adata.obsm["X_scpalm_imputed"].shape
            (100, 2)
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
        """Find the pathway code of each token: which of the learned gene programmes a cell uses.

        Args:
            adata: the cells.
            summary: whether to write the share of a cell's tokens that have each code, instead of the codes.
            key_added: key of ``obsm`` to use instead of the default.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``obsm["X_scpalm_pathways"]`` int32 ``[cells, 96]``: the code of each token, from 0 to 127.
            - ``obsm["X_scpalm_pathway_shares"]`` float32 ``[cells, 128]`` instead, with ``summary``: rows sum to 1.

        Raises:
            InputError: the cells cannot be read with certainty; the text names the gene, cell or option at fault.

        Example:
            >>> engine.pathways(adata, summary=True)
            >>> adata.obsm["X_scpalm_pathway_shares"].shape
            (100, 128)
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
        """Predict drug response, as ln IC50 in uM.

        Single cells have too few counts: sum a group with ``by``. Learned from cancer cell lines; not for treatment.

        Args:
            adata: the cells, or bulk profiles. ``obsm["mutation"]`` (1, 0, -1 for unknown) is used if it is there.
            drugs: names, PubChem ids, SMILES, InChI or InChIKeys. Default: every drug in the training data.
            by: column of ``obs``: the raw counts of each group are summed, and each group gets one answer.
            contrast: a group of ``by`` that the others are compared with, such as normal cells.
            key_added: key to use instead of the default; without ``by`` it is also the prefix of the further keys.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``obsm["X_scpalm_ic50"]`` float32 ``[cells, drugs]``: ln IC50 in uM; NaN for a cell without its genes.
            - ``obsm["X_scpalm_ic50_lower"]``, ``_upper`` float32 ``[cells, drugs]``: the 90 % prediction interval.
            - ``obsm["X_scpalm_ic50_relative"]`` float32 ``[cells, drugs]``: minus the drug's mean over training lines.
            - ``obsm["X_scpalm_ic50_percentile"]`` float32 ``[cells, drugs]``: % of training lines as sensitive.
            - ``obsm["X_scpalm_ic50_rank"]`` int32 ``[cells, drugs]``: rank of the drug by the relative score, 1 first.
            - ``obsm["X_scpalm_ic50_cell_distance"]`` float32 ``[cells, 1]``: 1 - correlation with the nearest line.
            - ``obs["scpalm_ic50_domain"]``, ``obs["scpalm_ic50_nearest_line"]`` categorical of str: that in words.
            - ``uns["scpalm_ic50_by_{by}"]`` instead, with ``by``: a dict of ``groups``, ``drugs``, ``domain`` and
              ``nearest_line`` (arrays of str), the values above as ``[groups, drugs]``, ``note`` (JSON), and with
              ``contrast`` also ``ic50_contrast``, ``ic50_contrast_lower`` and ``ic50_contrast_upper``.

        Raises:
            InputError: the cells cannot be read, have too few of the genes, or a drug or group is unknown.

        Example:
            >>> engine.ic50(adata, ["Cisplatin"], by="cell_type")
            >>> adata.uns["scpalm_ic50_by_cell_type"]["ic50_relative"].shape
            (2, 1)
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
        """Name the type of each cell by the most similar labelled cells.

        Args:
            adata: the cells to label.
            reference: labelled cells: a path or an AnnData. Default: the reference of the model.
            label: column of the reference's ``obs`` that holds the labels.
            vote: column of ``adata.obs`` with groups of cells, such as clusters, that share a label by vote.
            key_added: prefix of the new columns.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: as elsewhere, and ``reference_layer``; see `scpalm.model.spec.AnnotateReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes to ``obs``:

            - ``scpalm_label`` categorical of str: broad type; ``unknown`` for cells too far from the reference.
            - ``scpalm_nearest_label``, ``scpalm_second_label`` categorical of str: the nearest type, the next.
            - ``scpalm_cell_type`` categorical of str: a more specific name, not calibrated.
            - ``scpalm_probability`` float32: that ``scpalm_nearest_label`` is right.
            - ``scpalm_distance`` float32, ``scpalm_unknown`` int32: to the nearest reference cell; if too far, 1.
            - ``scpalm_voted_label`` categorical, ``scpalm_vote_share`` float32, with ``vote``: of the whole group.

        Raises:
            InputError: the cells or the reference cannot be read, or a column does not exist.

        Example:
            >>> engine.annotate(adata, vote="leiden")
            >>> adata.obs["scpalm_voted_label"].dtype.name
            'category'
        """
        read = ReadOptions(layer=how.get("layer"), input=how.get("input", "auto"), total=how.get("total"))
        spec = RequestSpec(("annotate",), {} if vote is None else {"vote": vote}, **read)
        read_reference = LabelledBy(label, how.get("reference_layer"))
        return self._run(adata, Call(spec, key_added, copy=copy, reference=reference, reference_by=read_reference))

    def umap(
        self, adata: AnnData, *, resolution: float = 1.0, copy: bool = False, **how: Unpack[ReadOptions]
    ) -> Answer:
        """Lay the cells out in two dimensions by their embedding (UMAP), and cluster them (Leiden).

        Of more than 20,000 cells, a sample is laid out; the others are placed next to their neighbours in it.

        Args:
            adata: the cells.
            resolution: of the clusters; a higher one gives more.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``obsm["X_scpalm_umap"]`` float32 ``[cells, 2]``: the positions.
            - ``obs["scpalm_cluster"]`` categorical of str: the clusters.

        Raises:
            InputError: the cells cannot be read with certainty.
            LayoutError: the layout failed.

        Example:
            >>> engine.umap(adata)
            >>> adata.obsm["X_scpalm_umap"].shape
            (100, 2)
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
        """Embed every cell without its batch.

        Centres batches, then principal components and Harmony. The result depends on all cells. Needs ``[integrate]``.

        Args:
            adata: the cells.
            batch_key: column of ``adata.obs`` with the batch of each cell, such as a donor or a technology.
            key_added: key of ``obsm`` to use instead of the default.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.
            **how: ``layer``, ``input`` and ``total`` say how to read the cells; see `scpalm.model.spec.ReadOptions`.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes:

            - ``obsm["X_scpalm_integrated"]`` float32 ``[cells, 30]``: the embedding without batches; length 1.

        Raises:
            InputError: the cells cannot be read, or the column is missing or has one batch only.

        Example:
            >>> engine.integrate(adata, "donor")
            >>> adata.obsm["X_scpalm_integrated"].shape
            (100, 30)
        """
        return self._run(
            adata, Call(RequestSpec(("integrate",), {"batch_key": batch_key}, **how), key_added, copy=copy)
        )
