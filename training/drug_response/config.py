"""Options of drug response training: typed, checked, recorded in the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from scpalm.model.drug_response.config import AtomPooling, Head, Readout
from scpalm.training.runs.config import ConfigError

Inputs = Literal["h_C", "genes", "h_C+genes", "pca", "scfoundation"]
Setting = Literal["expression", "mutation", "methylation"]
Extras = Literal["added", "joint"]


@dataclass(frozen=True)
class DrugTrainingConfig:
    """Options.

    Attributes:
        inputs: what stands for the cell: ``h_C``, the panel's ``genes``, both, as many principal components of the
            genes as h_C is wide (``pca``), or scFoundation's published embedding.
        setting: ``expression`` alone, with ``mutation``, or with mutation and ``methylation``.
        head, pooling, readout, rank, hidden: of the network, see ``DrugResponseConfig``. graph_width: of all graph
            convolutions but the last, which is 100 wide.
        dropout: of cell branches and head. extra_dropout: of what the mutation and methylation branches say.
        extras: how those two come in: ``added`` to a finished member of the setting before, which stays as it is, or
            ``joint``, in a network of their own. extra_hidden: width inside their branches. extra_epochs, extra_lr:
            passes and peak of the schedule of an added branch.
            graph_dropout: of the drug encoder.
        fine_tune: then the bundle's cell encoder learns, too: ``tune_epochs`` passes with peaks ``tune_lr`` for the
            encoder and ``tune_head_lr`` for the cell side of the head. For the table: such a member is not exported.
        free_epochs: passes over the rows with a free vector for each drug in place of the drug encoder.
        encoder_epochs: passes of the drug encoder over the drugs, towards those vectors.
        lr, encoder_lr: peaks of the two one-cycle schedules. weight_decay: of AdamW.
        line_groups: the lines are dealt into so many groups, one a step, with all drugs.
        drug_groups: the drugs are dealt into so many groups, one a step of the encoder.
    """

    inputs: Inputs = "h_C+genes"
    setting: Setting = "expression"
    head: Head = "product"
    pooling: AtomPooling = "mean"
    readout: Readout = "all"
    rank: int = 64
    hidden: int = 256
    graph_width: int = 128
    dropout: float = 0.2
    extra_dropout: float = 0.5
    extras: Extras = "added"
    extra_hidden: int = 24
    extra_epochs: int = 10
    extra_lr: float = 1e-3
    fine_tune: bool = False
    tune_epochs: int = 10
    tune_lr: float = 1e-4
    tune_head_lr: float = 1e-3
    graph_dropout: float = 0.0
    free_epochs: int = 40
    encoder_epochs: int = 40
    lr: float = 1e-2
    encoder_lr: float = 3e-3
    weight_decay: float = 0.1
    line_groups: int = 8
    drug_groups: int = 7

    def __post_init__(self) -> None:
        sizes = ("rank", "hidden", "extra_hidden", "graph_width", "line_groups", "drug_groups")
        for name in (*sizes, "free_epochs", "encoder_epochs", "extra_epochs", "tune_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, is {getattr(self, name)}.")
        for name in ("lr", "encoder_lr", "extra_lr", "tune_lr", "tune_head_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0, is {getattr(self, name)}.")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight_decay must be at least 0, is {self.weight_decay}.")
        for name in ("dropout", "extra_dropout", "graph_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), is {getattr(self, name)}.")
        if self.fine_tune and "h_C" not in self.inputs:
            raise ConfigError(f"fine_tune has no effect with inputs={self.inputs}, which have no h_C: leave it out.")
        if self.fine_tune and self.extras == "added" and self.setting != "expression":
            raise ConfigError("fine_tune with mutation or methylation needs extras=joint.")
        kinds = {"inputs": Inputs, "setting": Setting, "extras": Extras}
        kinds |= {"head": Head, "pooling": AtomPooling, "readout": Readout}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be {', '.join(get_args(kind))}; is '{getattr(self, name)}'.")

    def as_dict(self) -> dict[str, object]:
        return asdict(self)
