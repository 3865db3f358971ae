"""Options of drug-response training: typed, checked, and recorded in the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from scpalm.model.drug_response.config import AtomPooling, Head, Readout
from scpalm.training.runs.config import ConfigError, require_at_least, require_below_one, require_positive

Inputs = Literal["h_C", "genes", "h_C+genes", "pca", "scfoundation"]
Setting = Literal["expression", "mutation", "methylation"]
Extras = Literal["added", "joint"]


@dataclass(frozen=True)
class DrugTrainingConfig:
    """Options of one run.

    Attributes:
        inputs: what describes the cell: ``h_C``, the panel's ``genes``, both, as many principal components of the
            genes as h_C is wide (``pca``), or scFoundation's published embedding.
        setting: ``expression`` alone, with ``mutation``, or with mutation and ``methylation``.
        head, pooling, readout, rank, hidden: sizes of the network, see ``DrugResponseConfig``.
        graph_width: width of all graph convolutions except the last, which is 100 wide.
        dropout: of cell branches and head. extra_dropout: of the mutation and methylation branches' output.
        graph_dropout: of the drug encoder.
        extras: how these two branches are trained: ``added`` to a finished, fixed member of the setting before, or
            ``joint`` with a new network. extra_hidden: their inner width.
        extra_epochs, extra_lr: epochs and peak rate of an added branch.
        fine_tune: also train the bundle's cell encoder, for ``tune_epochs`` epochs with peak rates ``tune_lr``
            (encoder) and ``tune_head_lr`` (cell side of the head). Such a member is scored but not exported.
        free_epochs: epochs with a free vector per drug in place of the drug encoder.
        encoder_epochs: epochs in which the drug encoder learns those vectors.
        lr, encoder_lr: peaks of the two one-cycle schedules. weight_decay: of AdamW.
        line_groups: number of groups of cell lines; a step takes one group with all drugs.
        drug_groups: number of groups of drugs; a step of the encoder takes one.
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
        require_at_least(self, 1, *sizes, "free_epochs", "encoder_epochs", "extra_epochs", "tune_epochs")
        require_positive(self, "lr", "encoder_lr", "extra_lr", "tune_lr", "tune_head_lr")
        require_at_least(self, 0, "weight_decay")
        require_below_one(self, "dropout", "extra_dropout", "graph_dropout")
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
