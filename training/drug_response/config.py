"""Options of drug response training: typed, checked, recorded in the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from model.drug_response.config import AtomPooling, Head
from training.config import ConfigError

Inputs = Literal["h_C", "genes", "h_C+genes", "pca", "scfoundation"]
Setting = Literal["expression", "mutation", "methylation"]


@dataclass(frozen=True)
class DrugTrainingConfig:
    """Options.

    Attributes:
        inputs: what stands for the cell: ``h_C``, the panel's ``genes``, both, as many principal components of the
            genes as h_C is wide (``pca``), or scFoundation's published embedding.
        setting: ``expression`` alone, with ``mutation``, or with mutation and ``methylation``.
        head, pooling, rank, hidden, dropout: of the network, see ``DrugResponseConfig``. graph_width: of all graph
            convolutions but the last, which is 100 wide.
        free_epochs: passes with a free vector for each drug in place of the drug encoder.
        encoder_epochs: passes of the drug encoder over the drugs, towards those vectors.
        joint_epochs: passes of the whole network, end to end.
        lr, encoder_lr, joint_lr: peaks of the three one-cycle schedules. weight_decay: of AdamW.
        line_groups: the lines are dealt into so many groups, one a step, with all drugs.
        drug_groups: the drugs are dealt into so many groups, one a step of the encoder; a joint step is one of each.
    """

    inputs: Inputs = "h_C+genes"
    setting: Setting = "expression"
    head: Head = "product"
    pooling: AtomPooling = "mean"
    rank: int = 64
    hidden: int = 256
    graph_width: int = 256
    dropout: float = 0.1
    free_epochs: int = 40
    encoder_epochs: int = 40
    joint_epochs: int = 6
    lr: float = 2e-3
    encoder_lr: float = 3e-3
    joint_lr: float = 5e-4
    weight_decay: float = 0.1
    line_groups: int = 8
    drug_groups: int = 14

    def __post_init__(self) -> None:
        for name in ("rank", "hidden", "graph_width", "line_groups", "drug_groups", "free_epochs", "encoder_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, is {getattr(self, name)}.")
        if self.joint_epochs < 0:
            raise ConfigError(f"joint_epochs must be at least 0, is {self.joint_epochs}.")
        for name in ("lr", "encoder_lr", "joint_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0, is {getattr(self, name)}.")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight_decay must be at least 0, is {self.weight_decay}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), is {self.dropout}.")
        for name, kind in {"inputs": Inputs, "setting": Setting, "head": Head, "pooling": AtomPooling}.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be {', '.join(get_args(kind))}; is '{getattr(self, name)}'.")

    def as_dict(self) -> dict[str, object]:
        return asdict(self)
