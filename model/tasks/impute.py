"""Expression as the decoder of stage 1 reads it from each cell's pathway codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scpalm.model.bundle import Bundle
from scpalm.model.errors import MissingPartError, ParameterError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import (
    BoundTask,
    Names,
    OutputSpec,
    Recipe,
    RecipeError,
    Task,
    TaskContext,
    TaskOptions,
    Tensor,
    Values,
)

DECODER_FILE = "impute.onnx"
Scale = Literal["log", "counts"]


class ImputeOptions(TaskOptions):
    """Which genes, and on which scale."""

    genes: Annotated[Names, Tensor("impute_genes")] = Field(
        (),
        description="Genes to impute: symbols, aliases or Ensembl ids. Default: all that the model knows; of those an "
        "h5ad answer gets the file's own columns, as `layers['scpalm_imputed']`.",
        examples=[["CD3D", "NKG7", "LYZ"]],
        max_length=100_000,
    )
    scale: Scale = Field("log", description="log: log1p CP10K. counts: at the cell's own depth.")


class Impute(BoundTask):
    """Values of chosen genes ``[B, genes]``, never below 0: log1p CP10K, or counts at the cell's own depth.

    Args:
        genes: vocabulary positions. output: what the values are called; its columns are these genes.
    """

    name = "impute"

    def __init__(self, genes: NDArray[np.int64], output: OutputSpec, scale: Scale = "log") -> None:
        self.genes = genes
        self.outputs = (output,)
        self._scale = scale

    @classmethod
    def of_genes(cls, genes: NDArray[np.int64], names: Sequence[str], scale: Scale = "log") -> Impute:
        """The named genes, one column each, in ``obsm``."""
        return cls(genes, OutputSpec("impute", "X_scpalm_imputed", len(genes), columns=names), scale)

    @classmethod
    def of_columns(cls, target: NDArray[np.int32], symbols: Sequence[str], scale: Scale = "log") -> Impute:
        """The genes of the user's own columns, in ``layers``; ``target [num_vars]``: vocabulary position or -1."""
        known = target >= 0
        genes, position = np.unique(target[known], return_inverse=True)
        var_columns = np.full(len(target), -1, dtype=np.int64)
        var_columns[known] = position
        names = [symbols[gene] for gene in genes]
        output = OutputSpec(
            "impute", "scpalm_imputed", len(genes), columns=names, placement="layers", var_columns=var_columns
        )
        return cls(genes.astype(np.int64), output, scale)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        values = session.impute(encoded.codes, self.genes)
        # The decoder's output is unbounded; expression is not negative.
        return {"impute": np.maximum(values, 0.0, out=values)}

    def finish(self, values: Mapping[str, Values], prepared: Prepared) -> Mapping[str, Values]:
        if self._scale == "log":
            return values
        depth = (prepared.totals / 1e4).astype(np.float32)[:, None]
        return {"impute": np.expm1(values["impute"]) * depth}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        return Recipe(first, arrays={"genes": self.genes})


@register
class ImputeTask(Task[ImputeOptions]):
    """Imputed expression."""

    name = "impute"
    summary = "Expression as the model's decoder reads it from each cell's pathway codes; never below 0."
    result = "One value a cell and gene; `columns` names the genes."
    options = ImputeOptions
    tensors: ClassVar[Mapping[str, str]] = {"impute": "imputed"}

    def quick(self, options: ImputeOptions) -> bool:
        return False

    def bind(self, options: ImputeOptions, context: TaskContext) -> BoundTask:
        bundle = context.bundle
        if DECODER_FILE not in bundle.manifest["files"]:
            raise MissingPartError(
                f"The model {bundle.name} {bundle.version} has no decoder ({DECODER_FILE}). "
                "Serve a bundle that this release exported."
            )
        vocabulary = bundle.vocabulary
        if options.genes:
            return Impute.of_genes(_positions(vocabulary, options.genes), options.genes, options.scale)
        if context.columns is not None:
            return Impute.of_columns(context.columns, vocabulary.symbols, options.scale)
        return Impute.of_genes(np.arange(len(vocabulary)), vocabulary.symbols, options.scale)

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        genes = recipe.arrays["genes"].astype(np.int64)
        if len(genes) and not 0 <= int(genes.min()) <= int(genes.max()) < info.num_genes:
            raise RecipeError("A gene to impute is outside the vocabulary.")
        # Names and scale belong to the last step, which runs where the request came in.
        return Impute.of_genes(genes, ())


def _positions(vocabulary: Vocabulary, genes: Sequence[str]) -> NDArray[np.int64]:
    positions = np.array([vocabulary.find(gene)[0] for gene in genes], dtype=np.int64)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        gene = genes[unknown[0]]
        raise ParameterError(
            f"{len(unknown)} of {len(genes)} genes to impute are unknown to the model; the first is '{gene[:50]}'. "
            "Use HGNC symbols or Ensembl ids; GET /models/{name}/genes lists them.",
            field="genes",
        )
    return positions
