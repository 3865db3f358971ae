"""Training with two threads is reproducible bit for bit, at the sizes of ``mini``.

Small tests cannot show this: PyTorch splits an operation between threads only above some 32,768 numbers.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.network.config import preset
from scpalm.model.network.embedding import GeneEmbedding, SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.quantizer import CodeSizes, Quantizer
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import Stage1Config, Stage2Config
from scpalm.training.runs.run import Run
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.stages import stage1
from scpalm.training.stages.code_cache import CodeCache
from scpalm.training.stages.corpus_statistics import Yardsticks, gene_means
from scpalm.training.stages.stage1 import Stage1Trainer
from scpalm.training.stages.stage2 import Stage2Trainer
from tests.training.random_corpus import write_random_corpus
from tests.training.same import assert_same_state
from tests.training.tiny import CPU

NUM_GENES = 20_000
BATCH = 128
MINI = preset("mini", NUM_GENES)
# Genes, tokens, codes and batch as in mini; a narrower transformer, which takes a fifth of the time.
SIZES = replace(MINI, width=48, num_layers=1)
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("large")
    write_random_corpus(path, 256, 300, NUM_GENES)
    return Corpus(path)


def random_vectors(corpus: Corpus, sampler: Sampler, count: int) -> NDArray[np.float32]:
    """Orthonormal ``[G, count]``, in place of singular vectors that take a minute."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((corpus.num_genes, count), np.float32))[0]


def stage1_trainer(corpus: Corpus) -> StageTrainer[Any]:
    # Codes from the first step on, and a trained embedding: every operation takes part.
    config = Stage1Config(steps=4, batch_size=BATCH, quantizer_start=0.0, train_embedding=True, sync_update=0.3)
    return Stage1Trainer(corpus, replace(SIZES, pooling="mean"), config, CPU)


def stage2_trainer(corpus: Corpus) -> StageTrainer[Any]:
    config = Stage2Config(steps=4, batch_size=BATCH, replicas=1, linear_start=False, queue_start=BATCH)
    random = np.random.default_rng(0)
    codes = random.integers(MINI.num_codes, size=(1, len(corpus), MINI.num_tokens), dtype=np.uint8)
    scores = random.standard_normal((1, len(corpus), MINI.num_tokens), dtype=np.float32)
    means = gene_means(corpus, corpus.train_rows)
    yardsticks = Yardsticks(corpus, means, np.eye(NUM_GENES, MINI.num_tokens, dtype=np.float32))
    return Stage2Trainer(corpus, PathwayAutoencoder(SIZES), config, CPU, CodeCache(codes, scores), yardsticks)


def train(trainer: StageTrainer[Any], start: dict[str, object], steps: int) -> dict[str, object]:
    """The state after ``steps`` steps from ``start``."""
    trainer.restore(copy.deepcopy(start))
    for _ in range(steps):
        trainer.train_step()
    return copy.deepcopy(trainer.state())


@pytest.mark.parametrize("make", [stage1_trainer, stage2_trainer], ids=["stage1", "stage2"])
def test_two_runs_are_equal_and_a_resumed_run_is_equal_to_both(
    large: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setattr(stage1, "singular_vectors", random_vectors)
    trainer = make(large)
    start = copy.deepcopy(trainer.state())
    half = train(trainer, start, 1)
    whole = train(trainer, half, 1)
    assert_same_state(train(trainer, start, 2), whole)
    run = Run(tmp_path)
    run.save_checkpoint("some", half)
    assert_same_state(train(trainer, run.load_checkpoint("some"), 1), whole)


def gradients(threads: int, module: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    torch.set_num_threads(threads)
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True))


def test_the_gradient_of_the_codes_does_not_depend_on_threads() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(
        CodeSizes(MINI.num_tokens, MINI.width, MINI.num_codes, MINI.code_width), affine="none", sync=1.0
    )
    quantizer.down, quantizer.up = torch.nn.Identity(), torch.nn.Identity()
    point = torch.randn(BATCH, MINI.num_tokens, MINI.code_width)
    loss = (quantizer(point).tokens * torch.randn_like(point)).sum()
    assert_same_state(gradients(2, quantizer, loss), gradients(1, quantizer, loss))


def test_the_gradient_of_a_two_layer_gene_embedding_is_reproducible() -> None:
    torch.manual_seed(0)
    embedding = GeneEmbedding(NUM_GENES, MINI.num_tokens, 16, value_map="two_layer")
    genes = torch.randint(NUM_GENES // 100, (BATCH * 100,))  # few genes, so that threads meet
    cells = SparseCells(genes, torch.rand(len(genes)), torch.arange(0, len(genes), 100), torch.ones(1, NUM_GENES) > 0)
    loss = embedding(cells).square().sum()
    first = gradients(2, embedding, loss)
    for _ in range(5):
        assert_same_state(gradients(2, embedding, loss), first)


@pytest.mark.slow
def test_two_runs_of_the_command_write_the_same_checkpoints(large: Corpus, tmp_path: Path) -> None:
    for run in ("one", "two"):
        scpalm_train("pathways", large.path, "--out", tmp_path / run, "--steps", 15, "--set", "quantizer_start=0.2")
        scpalm_train("cells", tmp_path / run, "--steps", 15, "--set", "queue_start=256", "--set", "replicas=2")
    for stage in ("stage1", "stage2"):
        one, two = (Run(tmp_path / run).load_checkpoint(stage) for run in ("one", "two"))
        assert one["step"] == 15
        assert_same_state(one, two)
    curves = [(tmp_path / run / "curves.jsonl").read_text() for run in ("one", "two")]
    assert curves[0] == curves[1]
    assert all(json.loads(line)["step"] == 15 for line in curves[0].splitlines())


def scpalm_train(*words: object) -> None:
    """Run a command of ``scpalm-train`` in a process with two threads."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "scpalm.training.cli", *map(str, words), "--device", "cpu"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
