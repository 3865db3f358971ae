"""Sizes and choices of the drug response network; what training and the runtime without torch both read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scpalm.model.molecules import NUM_FEATURES, GraphBatch

Head = Literal["published", "mlp", "product"]
AtomPooling = Literal["mean", "padded"]
Readout = Literal["last", "all"]
PADDED_ATOMS = 100  # DeepCDR pads every drug to 100 atoms and takes the mean over all of them


@dataclass(frozen=True)
class DrugResponseConfig:
    """Sizes and choices.

    Attributes:
        cell_width: features of a cell (h_C, genes, or both). mutation_width, methylation_width: 0: no such branch.
            The mutation branch reads calls and their mask, so its width is twice the number of genes.
        head: ``published``: DeepCDR's convolutions over 300 units; ``mlp``: dense layers over 128 units that cell and
            drug add to; ``product``: inner product of what cell and drug say, plus an offset of each.
        pooling: of atoms into a drug: mean over its atoms, or their sum / 100, as with DeepCDR's padding.
        rank: of ``product``. dropout: everywhere. extra_dropout: of what the mutation and methylation branches say.
        graph_widths: of the graph convolutions.
        readout: what is pooled into a drug: the ``last`` convolution, as in DeepCDR, or atom features and ``all``
            convolutions side by side (jumping knowledge, Xu et al. 2018).
        hidden, branch: widths of a cell branch. extra_hidden: as hidden, of the mutation and methylation branches.
    """

    cell_width: int
    mutation_width: int = 0
    methylation_width: int = 0
    head: Head = "product"
    pooling: AtomPooling = "mean"
    readout: Readout = "all"
    rank: int = 64
    dropout: float = 0.1
    extra_dropout: float = 0.0
    graph_widths: tuple[int, ...] = (256, 256, 256, 100)
    hidden: int = 256
    branch: int = 100
    extra_hidden: int = 256

    def __post_init__(self) -> None:
        for name in ("cell_width", "rank", "hidden", "branch", "extra_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, is {getattr(self, name)}")
        for name in ("mutation_width", "methylation_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, is {getattr(self, name)}")
        for name in ("dropout", "extra_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), is {getattr(self, name)}")
        if not self.graph_widths or min(self.graph_widths) < 1:
            raise ValueError("graph_widths must name at least one width above 0")
        for name, kind in {"head": Head, "pooling": AtomPooling, "readout": Readout}.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be {' or '.join(get_args(kind))}, is {getattr(self, name)!r}")

    @property
    def drug_width(self) -> int:
        """Width of what the drug encoder says."""
        return self.graph_widths[-1] if self.readout == "last" else NUM_FEATURES + sum(self.graph_widths)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the cell branches, in order."""
        extra = [name for name in ("mutation", "methylation") if getattr(self, f"{name}_width")]
        return ("cell", *extra)

    def hidden_of(self, branch: str) -> int:
        """Width inside a cell branch."""
        return self.hidden if branch == "cell" else self.extra_hidden

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> DrugResponseConfig:
        """Raises ValueError for a key that is unknown or missing, or a value that is out of bounds."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(stored) - known):
            raise ValueError(f"unknown size '{unknown[0]}'")
        values = dict(stored)
        if isinstance(widths := values.get("graph_widths"), list):
            values["graph_widths"] = tuple(widths)
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(str(error)) from error


def pooling_share(graphs: GraphBatch, pooling: AtomPooling) -> NDArray[np.float32]:
    """``[atoms]`` weight of each atom in its molecule's mean."""
    if pooling == "padded":
        return np.full(len(graphs.molecule), 1.0 / PADDED_ATOMS, dtype=np.float32)
    atoms = np.bincount(graphs.molecule, minlength=graphs.num_molecules)
    return (1.0 / atoms[graphs.molecule]).astype(np.float32)
