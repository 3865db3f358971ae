"""Sizes and choices of the drug response network, for training and for the NumPy runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scpalm.model.molecules.graph import NUM_FEATURES, GraphBatch

Head = Literal["published", "mlp", "product"]
AtomPooling = Literal["mean", "padded"]
Readout = Literal["last", "all"]
PADDED_ATOMS = 100  # DeepCDR pads every drug to 100 atoms and averages over all of them


@dataclass(frozen=True)
class DrugResponseConfig:
    """Sizes and choices.

    Attributes:
        cell_width: number of features of a cell (h_C, genes, or both).
        mutation_width, methylation_width: number of features of these branches; 0 for no branch. The mutation branch
            reads calls and their mask, so its width is twice the number of genes.
        head: ``published``: DeepCDR's convolutions over 300 units; ``mlp``: dense layers over 128 units, the sum of
            cell and drug; ``product``: inner product of cell and drug vectors plus an offset of each.
        pooling: atoms into a drug: ``mean`` over its atoms, or ``padded``, their sum / 100, as in DeepCDR.
        readout: what is pooled: the ``last`` convolution, as in DeepCDR, or the atom features and ``all`` convolutions
            concatenated (jumping knowledge, Xu et al. 2018).
        rank: width of the inner product of ``product``.
        dropout: dropout rate everywhere.
        extra_dropout: dropout rate on the output of the mutation and methylation branches.
        graph_widths: widths of the graph convolutions.
        hidden, branch: hidden and output width of a cell branch.
        extra_hidden: hidden width of the mutation and methylation branches.
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
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
        for name in ("mutation_width", "methylation_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, but is {getattr(self, name)}")
        for name in ("dropout", "extra_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), but is {getattr(self, name)}")
        if not self.graph_widths or min(self.graph_widths) < 1:
            raise ValueError("graph_widths must have at least one width, and all must be above 0")
        for name, kind in {"head": Head, "pooling": AtomPooling, "readout": Readout}.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be {' or '.join(get_args(kind))}, but is {getattr(self, name)!r}")

    @property
    def drug_width(self) -> int:
        """Output width of the drug encoder."""
        return self.graph_widths[-1] if self.readout == "last" else NUM_FEATURES + sum(self.graph_widths)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the cell branches, in order."""
        extra = [name for name in ("mutation", "methylation") if getattr(self, f"{name}_width")]
        return ("cell", *extra)

    def hidden_of(self, branch: str) -> int:
        """Hidden width of a cell branch."""
        return self.hidden if branch == "cell" else self.extra_hidden

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> DrugResponseConfig:
        """Restore from `as_dict`. Raises ValueError for an unknown or missing key, or a value out of range."""
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
    """``[atoms]`` weight of each atom when its molecule is pooled."""
    if pooling == "padded":
        return np.full(len(graphs.molecule), 1.0 / PADDED_ATOMS, dtype=np.float32)
    atoms = np.bincount(graphs.molecule, minlength=graphs.num_molecules)
    return (1.0 / atoms[graphs.molecule]).astype(np.float32)
