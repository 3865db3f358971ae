"""Imputation: expression decoded from each cell's pathway codes (paper 3.2) and f."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scpalm.model.bundle import Bundle
from scpalm.model.errors import MissingPartError, ParameterError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.answer import TaskAnswer
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
    """Which genes to impute, and on which scale."""

    genes: Annotated[Names, Tensor("impute_genes")] = Field(
        (),
        description="Genes to impute: symbols, aliases or Ensembl ids. Default: every gene in the model's vocabulary; "
        "an h5ad response has them in the columns of the input, as `layers['scpalm_imputed']`.",
        examples=[["CD3D", "NKG7", "LYZ"]],
        max_length=100_000,
    )
    scale: Scale = Field("log", description="log: log1p CP10K. counts: counts at the sequencing depth of the cell.")


class ImputeAnswer(TaskAnswer):
    """Imputed values."""

    example: ClassVar[Mapping[str, Any]] = {
        "columns": ["CD3D", "LYZ"],
        "shape": [2, 2],
        "values": [[1.91, 0.02], [0.05, 3.4]],
    }

    columns: list[str] = Field(description="Names of the genes.")


class Impute(BoundTask):
    """Imputed values ``[B, genes]``, never negative: log1p CP10K, or counts at the cell's sequencing depth.

    Args:
        genes: vocabulary positions of the genes.
        output: describes the values; its columns are these genes.
        scale: ``log`` or ``counts``.
    """

    name = "impute"

    def __init__(self, genes: NDArray[np.int64], output: OutputSpec, scale: Scale = "log") -> None:
        self.genes = genes
        self.outputs = (output,)
        self._scale = scale

    @classmethod
    def of_genes(cls, genes: NDArray[np.int64], names: Sequence[str], scale: Scale = "log") -> Impute:
        """Impute the named genes; one column each, stored in ``obsm``."""
        return cls(genes, OutputSpec("impute", "X_scpalm_imputed", len(genes), columns=names), scale)

    @classmethod
    def of_columns(cls, target: NDArray[np.int32], symbols: Sequence[str], scale: Scale = "log") -> Impute:
        """Impute the genes of the input's columns; stored in ``layers``.

        ``target [num_vars]``: vocabulary position of each column, -1 where unknown.
        """
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
        values = session.impute(encoded, self.genes)
        # The decoder's output is unbounded, but expression cannot be negative.
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
    summary = "Expression decoded from each cell's pathway codes and linear read-out; never negative."
    result = "One value per cell and gene; `columns` names the genes."
    options = ImputeOptions
    answer = ImputeAnswer
    tensors: ClassVar[Mapping[str, str]] = {"impute": "imputed"}
    binds_quickly = False

    def bind(self, options: ImputeOptions, context: TaskContext) -> BoundTask:
        bundle = context.bundle
        if DECODER_FILE not in bundle.manifest["files"]:
            raise MissingPartError(
                f"The model {bundle.name} {bundle.version} has no decoder ({DECODER_FILE}). "
                "Use a bundle that this release exported."
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
            raise RecipeError("The position of a gene to impute is outside the vocabulary.")
        # A worker needs neither names nor scale: the process that received the request runs `finish`.
        return Impute.of_genes(genes, ())


def _positions(vocabulary: Vocabulary, genes: Sequence[str]) -> NDArray[np.int64]:
    positions = np.array([vocabulary.find(gene)[0] for gene in genes], dtype=np.int64)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        gene = genes[unknown[0]]
        raise ParameterError(
            f"{len(unknown)} of the {len(genes)} genes to impute are unknown to the model; the first is "
            f"'{gene[:50]}'. Use HGNC symbols or Ensembl ids; GET /models/{{name}}/genes lists them.",
            field="genes",
        )
    return positions
