"""Ablations: train and score variants that each change one choice of the model (paper Tables 5 to 7).

Table 5: ways to embed genes. Table 6: h_C and the tokens it is made of. Table 7: no pathway encoder, no codes, no
contrastive term. A variant is trained for a few hundred steps on a small corpus: enough to rank choices, not to reach
the quality of the full training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.evaluation.ablation.cells import Cells
from scpalm.training.evaluation.ablation.variants import VARIANTS, Variant
from scpalm.training.metrics.clustering import score_embedding
from scpalm.training.metrics.rows import Row, write_rows
from scpalm.training.runs.config import Stage1Config, Stage2Config, override
from scpalm.training.runs.run import RunError
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.stages.code_cache import codes_as_tensor
from scpalm.training.stages.stage1 import Stage1Trainer
from scpalm.training.stages.stage2 import Stage2Trainer, prepare_stage2

METHODS = ("h_C", "mean_tokens", "concat_tokens", "readout")
CPU = torch.device("cpu")
_SCALE_CELLS = 2048  # by which each coordinate of h_C is standardised, as at export
Progress = Callable[[str, int, int], None]
Stage = TypeVar("Stage", Stage1Config, Stage2Config)


@dataclass(frozen=True)
class AblationConfig:
    """Sizes, options and steps of both stages: the same for every variant, except for the choice it changes."""

    network: NetworkConfig
    stage1: Stage1Config
    stage2: Stage2Config


@dataclass(frozen=True, eq=False)
class Scoring:
    """What the variants are scored on, and the seeds of Leiden and of the folds. Training has one seed."""

    datasets: Sequence[Cells]
    seeds: Sequence[int] = (0, 1, 2)


def run_ablation(
    corpus: Corpus,
    scoring: Scoring,
    config: AblationConfig,
    variants: Sequence[Variant],
    out: Path,
    *,
    progress: Progress = lambda text, done, total: None,
) -> list[Row]:
    """Rows of every variant and embedding; ``method`` is ``"<variant>: <embedding>"``.

    The rows of each finished variant are kept in ``out``; another call trains the missing ones. Raises RunError when
    ``out`` holds an ablation with other options.
    """
    _check_options(out, corpus, config, scoring)
    rows: list[Row] = []
    for number, variant in enumerate(variants):
        kept = out / f"{number_of(variant):02d}.json"
        if not kept.exists():
            write_rows(kept, _rows(corpus, scoring, config, variant, progress))
        rows += json.loads(kept.read_text(encoding="utf-8"))
        progress(variant.name, number + 1, len(variants))
    return rows


def number_of(variant: Variant) -> int:
    """Position in ``VARIANTS``, which names the file of its rows."""
    return VARIANTS.index(variant)


def _check_options(out: Path, corpus: Corpus, config: AblationConfig, scoring: Scoring) -> None:
    record = {
        "corpus": corpus.digest,
        "datasets": [[data.name, len(data.labels.codes)] for data in scoring.datasets],
        "options": repr(config),
        "seeds": list(scoring.seeds),
    }
    file = out / "ablation.json"
    out.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text(json.dumps(record, indent=1), encoding="utf-8")
    elif json.loads(file.read_text(encoding="utf-8")) != record:
        raise RunError(f"{out} holds an ablation with other options. Choose another --runs folder.")


def _rows(corpus: Corpus, scoring: Scoring, config: AblationConfig, variant: Variant, progress: Progress) -> list[Row]:
    trained = train_variant(corpus, config, variant, progress)
    rows: list[Row] = []
    for dataset in scoring.datasets:
        for method in METHODS:
            progress(f"{variant.name}: {dataset.name}, {method}", 0, 0)
            array = trained.embed(method, dataset.batches)
            head: Row = {"task": "ablation", "dataset": dataset.name, "method": f"{variant.name}: {method}"}
            tail: Row = {
                "zero_shot": not dataset.seen,
                "tables": ", ".join(map(str, variant.tables)),
                "width": int(array.shape[1]),
                **trained.costs,
            }
            rows += [{**head, **score, **tail} for score in score_embedding(array, dataset.labels, scoring.seeds)]
    return rows


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained variant. mean, sd: of h_C. costs: seconds per stage, megabytes that a step keeps."""

    stage1: PathwayAutoencoder
    cells: CellEncoder
    mean: Tensor
    sd: Tensor
    costs: dict[str, float]

    @torch.no_grad()
    def embed(self, method: str, batches: Sequence[SparseCells]) -> NDArray[np.float32]:
        """``[cells, width]`` by a method of an ``EmbeddingSource``, with the trained networks."""
        parts: list[Tensor] = []
        for batch in batches:
            f = self.stage1.read_out(batch)
            if method == "readout":
                parts.append(f)
                continue
            tokens = self.stage1.quantizer.decompress(self.stage1.quantizer.compress(self.stage1.encode_read_out(f)))
            if method == "h_C":
                parts.append((self.cells.embed(tokens) - self.mean) / self.sd)
            else:
                parts.append(tokens.mean(dim=1) if method == "mean_tokens" else tokens.flatten(1))
        return torch.cat(parts).numpy()


def train_variant(corpus: Corpus, config: AblationConfig, variant: Variant, progress: Progress) -> Trained:
    """Train both stages on the CPU, with the seed of the options."""
    network = override(config.network, dict(variant.network))
    first, second = _changed(config.stage1, variant.stage1), _changed(config.stage2, variant.stage2)
    started = time.monotonic()
    one = Stage1Trainer(corpus, network, first, CPU)
    try:
        if not variant.pathway_encoder:
            one.model.encoder = nn.Identity()  # type: ignore[assignment]
        _train(one, first.steps, f"{variant.name}: stage 1", progress)
        between = time.monotonic()
        kept_one = _kept_megabytes(one)
    finally:
        one.close()
    stage1 = one.model.eval().requires_grad_(requires_grad=False)
    stage1.quantizer.bypass = not first.quantizer
    again = time.monotonic()
    two = prepare_stage2(
        corpus, stage1, second, CPU, lambda done, total: progress(f"{variant.name}: codes", done, total)
    )
    try:
        _train(two, second.steps, f"{variant.name}: stage 2", progress)
        ended = time.monotonic()
        kept_two = _kept_megabytes(two)
    finally:
        two.close()
    cells = two.encoder.eval().requires_grad_(requires_grad=False)
    mean, sd = _scale(two, cells)
    costs = {
        "stage1_seconds": round(between - started, 1),
        "stage2_seconds": round(ended - again, 1),
        "stage1_megabytes": kept_one,
        "stage2_megabytes": kept_two,
    }
    return Trained(stage1, cells, mean, sd, costs)


def _changed(config: Stage, changes: Mapping[str, str]) -> Stage:
    """A copy with ``changes``; options that lose their effect go back to their defaults."""
    void = {name for name, switch in config.needs.items() if changes.get(switch) in ("0", "false")}
    defaults = {one.name: one.default for one in fields(config) if one.name in void}
    return override(replace(config, **defaults), dict(changes))  # type: ignore[arg-type]


def _train(trainer: StageTrainer, steps: int, text: str, progress: Progress) -> None:  # type: ignore[type-arg]
    for step in range(steps):
        trainer.train_step()
        progress(text, step + 1, steps)


def _kept_megabytes(trainer: StageTrainer) -> float:  # type: ignore[type-arg]
    """Megabytes that the forward pass of a step keeps for its gradient: each storage once, without weights."""
    own = {weight.untyped_storage().data_ptr() for weight in trainer.network.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # keeps storages alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    trainer.network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.loss(trainer.parts(0)[0])
    return round(sum(sizes.values()) / 1e6, 1)


@torch.no_grad()
def _scale(trainer: Stage2Trainer, cells: CellEncoder) -> tuple[Tensor, Tensor]:
    """Mean and sd of each coordinate of h_C over tissue-balanced training cells, as at export."""
    rows = trainer.sampler.draw(2**31 + 3, min(_SCALE_CELLS, 4 * len(trainer.sampler.rows)))
    parts = []
    for start in range(0, len(rows), 256):
        tokens = trainer.stage1.quantizer.decompress(codes_as_tensor(trainer.cache.codes[0, rows[start : start + 256]]))
        parts.append(cells.embed(tokens))
    h = torch.cat(parts)
    return h.mean(0), h.std(0).clamp(min=1e-6)
