"""Two processes under torchrun, over gloo on the CPU, compared with one."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from typer.testing import CliRunner

from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder, Standardise
from scpalm.model.network.quantizer import CodeSizes, Quantizer
from scpalm.model.network.read_out import LinearReadOut
from scpalm.training.cli.main import app
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import Stage2Config
from scpalm.training.runs.processes import slices_of_process
from scpalm.training.runs.run import Run, RunError
from scpalm.training.stages.code_cache import cache_cells
from scpalm.training.stages.corpus_statistics import Scores
from tests.training.tiny import SIZES as TINY
from tests.training.tiny import write_corpus

ROOT = Path(__file__).parents[3]
SIZES = ("num_tokens=8", "width=16", "num_layers=1", "num_heads=2", "num_codes=16", "gene_width=16", "code_width=4")
COMMON = ("batch_size=16", "warmup_steps=40", "lr=0.01", "evaluate_every=1")
STAGE1 = (*SIZES, *COMMON, "checkpoint_every=8", "patience=1", "quantizer_start=0.25")
STAGE2 = (
    *COMMON,
    "checkpoint_every=8",
    "contrastive=0.5",
    "clusters=3",
    "negatives=6",
    "queue=64",
    "queue_start=32",
    "refit_every=3",
    "replicas=2",
)
# Relative tolerance of every loss. Sums over cells are added in another order. AdamW amplifies that for tiny gradients,
# and a token halfway between two codes may change its code.
TOLERANCE = 1e-3
# Held-out scores jump when a near tie between two codes is decided otherwise.
SCORE_TOLERANCE = 5e-3


def train(processes: int, *words: object, settings: tuple[str, ...] = ()) -> None:
    """Run a command of ``scpalm-train`` in this process, or in several under torchrun."""
    all_words = [*map(str, words), *(word for pair in settings for word in ("--set", pair)), "--device", "cpu"]
    if processes == 1:
        result = CliRunner().invoke(app, all_words)
        assert result.exit_code == 0, result.output
        return
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*start, "-m", "scpalm.training.cli", *all_words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def curves(run: Path, stage: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "stage"} for line in lines if line["stage"] == stage]


def assert_same_curves(one: Path, two: Path, stage: str, steps: int) -> None:
    a, b = curves(one, stage), curves(two, stage)
    assert [line["step"] for line in a] == [line["step"] for line in b] == list(range(1, steps + 1))
    for first, second in zip(a, b, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            if name not in ("perplexity", "used_codes", "revived"):
                tolerance = SCORE_TOLERANCE if name == "held_out_score_mse" else TOLERANCE
                assert second[name] == pytest.approx(first[name], rel=tolerance, nan_ok=True), (name, first["step"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Both stages, 12 steps each, by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    corpus, out = write_corpus(folder), {}
    for processes in (1, 2):
        out[processes] = folder / f"run-{processes}"
        train(processes, "pathways", corpus, "--out", out[processes], "--steps", 12, settings=STAGE1)
        if processes == 2:  # both runs start stage 2 from the same stage 1
            shutil.copy(out[1] / "stage1.pt", out[2] / "stage1.pt")
        train(processes, "cells", out[processes], "--steps", 12, settings=STAGE2)
    return out


def test_two_processes_have_the_loss_curve_of_one(runs: dict[int, Path]) -> None:
    for stage in ("stage1", "stage2"):
        assert_same_curves(runs[1], runs[2], stage, 12)
    assert "contrastive" in curves(runs[2], "stage2")[-1]
    assert curves(runs[2], "stage1")[-1]["revived"] == curves(runs[1], "stage1")[-1]["revived"] > 0


def test_the_statistics_and_the_queue_are_those_of_all_cells(runs: dict[int, Path]) -> None:
    cells = [Run(runs[n]).load_checkpoint("stage2") for n in (1, 2)]
    queues = [state["queue"] for state in cells]
    assert queues[0]["filled"] == queues[1]["filled"] == 64
    torch.testing.assert_close(queues[1]["vectors"], queues[0]["vectors"], rtol=0.01, atol=0.01)
    torch.testing.assert_close(queues[1]["centers"], queues[0]["centers"], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("first, second", [(1, 2), (2, 1)])
def test_a_run_can_resume_with_another_number_of_processes(
    runs: dict[int, Path], tmp_path: Path, first: int, second: int
) -> None:
    corpus, run = runs[1].parent / "corpus", tmp_path / "run"
    # The codes start at step 3 of both 8 and 12. The rate is still warming up, so it does not depend on the last step.
    settings = [pair for pair in STAGE1 if not pair.startswith("quantizer_start")]
    train(first, "pathways", corpus, "--out", run, "--steps", 8, settings=(*settings, "quantizer_start=0.375"))
    train(second, "pathways", corpus, "--out", run, "--steps", 12, "--resume")
    assert_same_curves(runs[1], run, "stage1", 12)


def test_a_batch_that_cannot_be_shared_is_refused(runs: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"batch_size 16 cannot be divided by 1 processes x accumulate 3.*multiple of 3"):
        slices_of_process(16, 3)
    assert slices_of_process(16, 2) == [slice(0, 8), slice(8, 16)]


def statistics(f: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Results that depend on all cells of a batch: normalised read-outs, their gradient, the quantizer's state."""
    torch.manual_seed(0)
    norm, quantizer = Standardise(5), Quantizer(CodeSizes(5, 6, 7, 3), patience=1)
    f.requires_grad_()
    out = norm(f)
    (out * torch.arange(5.0) + out**3).sum().backward()
    quantizer(tokens)
    indices = torch.zeros(tokens.shape[:2], dtype=torch.int64)
    quantizer.revive(tokens, indices, torch.Generator().manual_seed(0))
    assert f.grad is not None
    return {"out": out.detach(), "gradient": f.grad} | dict(norm.state_dict()) | dict(quantizer.state_dict())


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 5, generator=generator), torch.randn(8, 5, 6, generator=generator)


def half(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    f, tokens = (part[rank * 4 : (rank + 1) * 4].clone() for part in batch())
    torch.save(statistics(f, tokens), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_statistics_gradients_and_revived_codes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    halves = [context.Process(target=half, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in halves:
        process.start()
    for process in halves:
        process.join(120)
        assert process.exitcode == 0
    whole = statistics(*batch())
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, expected in whole.items():
        if name in ("out", "gradient"):
            found = torch.cat([part[name] for part in parts])
        else:
            found = parts[0][name]
            assert torch.equal(parts[1][name], found), name
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)


def encode_together(rank: int, folder: str) -> None:
    if rank >= 0:
        dist.init_process_group("gloo", init_method=f"file://{folder}/cells", rank=rank, world_size=2)
    corpus = Corpus(Path(folder) / "corpus")
    torch.manual_seed(0)
    stage1 = PathwayAutoencoder(replace(TINY, num_codes=700))
    assert isinstance(stage1.embedding, LinearReadOut)
    scores = Scores(corpus, Sampler(corpus, power=1.0, seed=0), stage1.embedding)
    numbers: list[int] = []
    read_out = stage1.read_out

    def counted(cells: SparseCells) -> Tensor:
        numbers.append(len(cells.offsets))
        return read_out(cells)

    stage1.read_out = counted  # type: ignore[method-assign]
    cache = cache_cells(corpus, stage1, scores, Stage2Config(replicas=2), torch.device("cpu"))
    np.savez(f"{folder}/cache-{rank}.npz", codes=cache.codes, scores=cache.scores, cells=np.array(sum(numbers)))
    if rank >= 0:
        dist.destroy_process_group()


def test_cells_are_encoded_by_all_processes_and_known_to_all(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=encode_together, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in processes:
        process.start()
    encode_together(-1, str(tmp_path))
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    alone, *parts = (np.load(tmp_path / f"cache-{rank}.npz") for rank in (-1, 0, 1))
    for part in parts:
        np.testing.assert_array_equal(part["codes"], alone["codes"])
        np.testing.assert_array_equal(part["scores"], alone["scores"])
    assert alone["codes"].dtype == np.uint16 and alone["codes"].max() > 255
    # 300 cells, twice, in pieces of 256.
    assert [int(part["cells"]) for part in (alone, *parts)] == [600, 512, 88]
