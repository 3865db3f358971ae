"""From what a request or a command asks for to tasks: names are looked up once the file's own genes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidParameterError, UnsupportedTaskError
from app.tasks import TASK_NAMES, Embed, Impute, Pathways, PathwayShares, Scale, Task
from model.bundle import Bundle
from model.genes import Vocabulary
from model.sessions import SessionInfo

DECODER_FILE = "impute.onnx"


@dataclass(frozen=True)
class Asked:
    """Tasks by name, the route's own first, and their options.

    Attributes:
        names: of `TASK_NAMES`. genes: to impute, by symbol, alias or Ensembl id; none means all.
        scale: of imputed values. summary: shares of codes instead of codes.
    """

    names: tuple[str, ...]
    genes: tuple[str, ...] = ()
    scale: Scale = "log"
    summary: bool = False

    def tasks(self, bundle: Bundle, info: SessionInfo, target: NDArray[np.int32] | None = None) -> tuple[Task, ...]:
        """The tasks. ``target``: impute the file's own columns (see `Impute.of_columns`) when no genes are named.

        Raises InvalidParameterError for an unknown task or gene, UnsupportedTaskError where the bundle lacks a part.
        """
        tasks: list[Task] = []
        for name in dict.fromkeys(self.names):
            if name == "embed":
                tasks.append(Embed(info))
            elif name == "pathways":
                tasks.append(PathwayShares(info) if self.summary else Pathways(info))
            elif name == "impute":
                tasks.append(self._impute(bundle, target))
            else:
                raise InvalidParameterError(
                    f"There is no task '{name[:50]}'. Choose of {', '.join(TASK_NAMES)}.", field="also"
                )
        return tuple(tasks)

    def _impute(self, bundle: Bundle, target: NDArray[np.int32] | None) -> Impute:
        if DECODER_FILE not in bundle.manifest["files"]:
            raise UnsupportedTaskError(
                f"The model {bundle.name} {bundle.version} holds no decoder ({DECODER_FILE}). "
                "Serve a bundle exported by this release."
            )
        vocabulary = bundle.vocabulary
        if self.genes:
            return Impute(_positions(vocabulary, self.genes), self.genes, self.scale)
        if target is not None:
            return Impute.of_columns(target, vocabulary.symbols, self.scale)
        return Impute(np.arange(len(vocabulary)), vocabulary.symbols, self.scale)


def _positions(vocabulary: Vocabulary, genes: Sequence[str]) -> NDArray[np.int64]:
    positions = np.array([vocabulary.find(gene)[0] for gene in genes], dtype=np.int64)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        gene = genes[unknown[0]]
        raise InvalidParameterError(
            f"{len(unknown)} of {len(genes)} genes to impute are not known to the model, the first is '{gene[:50]}'. "
            "Name them by HGNC symbol or Ensembl id; GET /models/{name}/genes lists them.",
            field="genes",
        )
    return positions


def names_in(text: str) -> tuple[str, ...]:
    """Names in a comma-separated list, without empty ones."""
    return tuple(name for part in text.split(",") if (name := part.strip()))
