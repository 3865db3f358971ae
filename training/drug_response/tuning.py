"""Fine-tuning: train the bundle's cell encoder together with a finished member, on the same pathway codes.

Stage 1 stays frozen because codes have no gradient, so the encoder runs on the ``[lines, N]`` codes of the bundle. A
tuned encoder belongs to one member and is not the one behind ``/embed``. It is therefore measured but not exported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.network import CellTensors, DrugResponseNetwork
from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.sessions.torchscript import load_network
from scpalm.training.drug_response.features import LineEmbeddings, LineFeatures
from scpalm.training.drug_response.member import Member, Progress
from scpalm.training.drug_response.refine import Refinement, freeze_norms, refine
from scpalm.training.drug_response.steps import MemberTask, Numbers

_TUNED = 3  # stage, as part of each random draw


class _Encoder(nn.Module):
    """Codes -> z-scores of h_C, with the statistics of the frozen encoder."""

    def __init__(self, network: InferenceNetwork, mean: NDArray[np.float32], sd: NDArray[np.float32]) -> None:
        super().__init__()
        self.cell_encoder = network.cell_encoder
        self.code_tokens = network.code_tokens
        self.mean, self.sd = torch.from_numpy(mean), torch.from_numpy(sd)

    def forward(self, codes: Tensor) -> Tensor:
        """``[L, N] -> [L, D]``."""
        return (self.cell_encoder.embed(self.code_tokens[codes]) - self.mean) / self.sd


def tune(
    base: DrugResponseNetwork,
    bundle: Bundle,
    lines: LineEmbeddings,
    task: MemberTask,
    progress: Progress = lambda stage, epoch, rmse: None,
) -> tuple[Member, LineFeatures]:
    """The member with its cell side tuned together with the encoder, and the features that the tuned encoder gives."""
    tables, features, config = task.tables, task.features, task.config
    torch.manual_seed(task.seed)
    width = lines.h_c.shape[1]
    standard = features.standards["cell"]
    encoder = _Encoder(load_network(bundle), standard.mean[:width], standard.sd[:width]).requires_grad_(
        requires_grad=True
    )
    codes = torch.from_numpy(lines.codes.astype(np.int64))
    cell, *extra = features.tensors.branches
    base.requires_grad_(requires_grad=False)
    side = nn.ModuleList([base.cell_branches, base.head.cell]).requires_grad_()

    def of(chosen: Numbers) -> CellTensors:
        at = torch.from_numpy(chosen)
        tuned = torch.cat([encoder(codes[at]), cell[at][:, width:]], dim=1)
        return CellTensors((tuned, *(part[at] for part in extra)))

    def train_mode() -> None:
        encoder.train()
        base.cell_branches.train()
        freeze_norms(base.cell_branches)

    what = Refinement(
        stage="fine-tuning",
        draw=[task.seed, _TUNED],
        epochs=config.tune_epochs,
        network=base,
        trained=nn.ModuleList([base, encoder]),
        groups=[{"params": [*encoder.parameters()], "weight_decay": 0.0}, {"params": [*side.parameters()]}],
        rates=[config.tune_lr, config.tune_head_lr],
        features=of,
        train_mode=train_mode,
    )
    history = refine(what, task, progress)
    with torch.no_grad():
        tuned = of(np.arange(len(tables.lines)))
    return Member(base, history), replace(features, tensors=tuned)
