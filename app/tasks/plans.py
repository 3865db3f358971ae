"""From what a request or a command asks for to tasks: names are looked up once the file's own genes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scpalm.app.errors import InvalidParameterError, UnsupportedTaskError
from scpalm.app.tasks.ic50 import OPTIONAL, drug_response_of, drug_response_tasks, find_drugs, optional_inputs
from scpalm.app.tasks.task import TASK_NAMES, Embed, Impute, Pathways, PathwayShares, Scale, Task
from scpalm.model.bundle import Bundle
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.sessions.session import SessionInfo

DECODER_FILE = "impute.onnx"


@dataclass(frozen=True)
class Asked:
    """Tasks by name, the route's own first, and their options.

    Attributes:
        names: of `TASK_NAMES`. genes: to impute, by symbol, alias or Ensembl id; none means all.
        scale: of imputed values. summary: shares of codes instead of codes.
        drugs: by name, PubChem id or SMILES; none means all known ones.
    """

    names: tuple[str, ...]
    genes: tuple[str, ...] = ()
    scale: Scale = "log"
    summary: bool = False
    drugs: tuple[str, ...] = ()

    def with_task(self, name: str) -> Asked:
        """The same, with ``name`` as the first task."""
        return replace(self, names=(name, *self.names))

    @property
    def extras(self) -> tuple[str, ...]:
        """What of a body beside its cells these tasks read."""
        return ("drugs", *OPTIONAL) if "ic50" in self.names else ()

    @property
    def quick(self) -> bool:
        """Whether no gene or drug has to be looked up."""
        return {"embed", "pathways"}.issuperset(self.names)

    def tasks(
        self,
        bundle: Bundle,
        info: SessionInfo,
        target: NDArray[np.int32] | None = None,
        extras: Mapping[str, object] = MappingProxyType({}),
        num_cells: int = 0,
    ) -> tuple[Task, ...]:
        """The tasks.

        ``target``: impute the file's own columns (see `Impute.of_columns`) when no genes are named. ``extras``: what
        the body says beside its ``num_cells`` cells: drugs, mutation, methylation.

        Raises InvalidParameterError for an unknown task or gene, InputError for a drug, UnsupportedTaskError where the
        bundle lacks a part.
        """
        names = tuple(dict.fromkeys(self.names))
        if "ic50" in names:
            return self._drug_response(names, bundle, extras, num_cells)
        tasks: list[Task] = []
        for name in names:
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

    def _drug_response(
        self, names: tuple[str, ...], bundle: Bundle, extras: Mapping[str, object], num_cells: int
    ) -> tuple[Task, ...]:
        if len(names) > 1:
            raise InvalidParameterError(
                "Drug response is read from a panel of genes, in a pass of its own. Ask for it by POST /ic50, and for "
                "the rest in another request.",
                field="also",
            )
        head = drug_response_of(bundle)
        drugs = find_drugs(head, [*self.drugs, *names_of_drugs(extras)])
        return drug_response_tasks(head, drugs, optional_inputs(head, extras, num_cells))

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


def names_of_drugs(extras: Mapping[str, object]) -> tuple[str, ...]:
    """``drugs`` of a body: a list, or text with one a line. Raises InvalidParameterError."""
    given = extras.get("drugs", ())
    if isinstance(given, str):
        return tuple(line for line in given.splitlines() if line.strip())
    if not isinstance(given, list | tuple) or not all(isinstance(drug, str | int) for drug in given):
        raise InvalidParameterError("'drugs' is no list of names, PubChem ids or SMILES.", field="drugs")
    return tuple(map(str, given))


def names_in(text: str) -> tuple[str, ...]:
    """Names in a comma-separated list, without empty ones."""
    return tuple(name for part in text.split(",") if (name := part.strip()))
