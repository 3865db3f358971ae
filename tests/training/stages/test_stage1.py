from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import GeneEmbedding
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage1Config
from scpalm.training.runs.run import Run, RunError
from scpalm.training.stages.stage1 import STAGE, Stage1Trainer, train_pathways
from tests.training.same import assert_same_state
from tests.training.tiny import CPU, SIZES

# The paper's read-out, which has weights to train.
MEAN = replace(SIZES, pooling="mean")
SHORT = Stage1Config(steps=20, batch_size=16, warmup_steps=5, lr=3e-3, checkpoint_every=10, evaluate_every=10)


def trainer(corpus: Corpus, config: Stage1Config = SHORT, sizes: NetworkConfig = SIZES) -> Stage1Trainer:
    return Stage1Trainer(corpus, sizes, config, CPU)


def steps(trainer: Stage1Trainer, count: int) -> Stage1Trainer:
    for _ in range(count):
        trainer.train_step()
    return trainer


def test_it_learns_more_than_the_gene_means(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(SHORT, steps=120, batch_size=32, evaluate_every=60)
    run = Run(tmp_path)
    seen: list[int] = []
    model = trainer(corpus, config)
    before = model.evaluate()
    assert before["held_out_mse"] == pytest.approx(before["gene_mean_mse"], rel=0.05)
    train_pathways(model, run, lambda step, scalars: seen.append(step))
    after = model.evaluate()
    assert after["held_out_mse"] < 0.9 * after["gene_mean_mse"]
    assert after["used_codes"] > 4
    assert after["perplexity"] > 2
    assert seen == list(range(1, 121))
    assert run.has_checkpoint(STAGE)
    assert len((tmp_path / "curves.jsonl").read_text().splitlines()) == 2


# With 20 steps the codes start at step 5. Stop before, at and after it.
@pytest.mark.parametrize("stop", [3, 5, 11])
@pytest.mark.parametrize("train_embedding", [False, True])
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    corpus: Corpus, tmp_path: Path, stop: int, train_embedding: bool
) -> None:
    config = replace(SHORT, train_embedding=train_embedding, patience=2)
    sizes = MEAN if train_embedding else SIZES
    whole = steps(trainer(corpus, config, sizes), 20)
    assert whole.revived > 0  # so that the test covers their random positions
    run = Run(tmp_path)
    run.save_checkpoint(STAGE, steps(trainer(corpus, config, sizes), stop).state())
    resumed = trainer(corpus, config, sizes)
    run.resume(resumed, STAGE)
    assert resumed.step == stop
    steps(resumed, 20 - stop)
    assert_same_state(resumed.state(), whole.state())
    assert resumed.evaluate() == whole.evaluate()


def test_evaluation_does_not_change_the_run(corpus: Corpus) -> None:
    looked, blind = trainer(corpus), trainer(corpus)
    for _ in range(8):
        looked.evaluate()
        looked.train_step()
        blind.train_step()
    assert_same_state(looked.state(), blind.state())


def test_runs_depend_on_the_seed(corpus: Corpus) -> None:
    runs = [steps(trainer(corpus, replace(SHORT, seed=seed)), 8) for seed in (1, 1, 2)]
    assert_same_state(runs[0].state(), runs[1].state())
    with pytest.raises(AssertionError):
        assert_same_state(runs[0].state(), runs[2].state())


def test_the_embedding_is_frozen_unless_it_is_to_be_trained(corpus: Corpus) -> None:
    for train_embedding in (False, True):
        model = trainer(corpus, replace(SHORT, train_embedding=train_embedding), MEAN)
        embedding = model.model.embedding
        assert isinstance(embedding, GeneEmbedding)
        before = embedding.scale.detach().clone()
        steps(model, 3)
        assert torch.equal(embedding.scale, before) is not train_embedding


@pytest.mark.parametrize(
    "change",
    [
        {"quantizer": False},
        {"revive": False},
        {"sync_update": 0.2},
        {"spectral_start": False, "train_embedding": True},
        {"thin_share": 0.0},
        {"score_weight": 0.0},
        {"quantizer_start": 0.0},
    ],
)
def test_it_trains_with_parts_turned_off(corpus: Corpus, change: dict[str, object]) -> None:
    sizes = MEAN if "train_embedding" in change else SIZES
    model = trainer(corpus, replace(SHORT, **change), sizes)  # type: ignore[arg-type]
    first = model.train_step()
    scalars = steps(model, 10).train_step()
    assert scalars["mse"] > 0
    assert ("commitment" in scalars) is (change.get("quantizer", True) is not False)
    assert ("commitment" in first) is (change.get("quantizer_start") == 0.0)
    assert ("score_mse" in scalars) is (change.get("score_weight") != 0.0)
    assert "held_out_mse" in model.evaluate()


@pytest.mark.parametrize(
    "change",
    [{"value_map": "two_layer"}, {"norm": "post"}, {"head": "shared"}, {"affine": "learned"}, {"affine": "none"}],
)
def test_it_trains_with_every_kind_of_network(corpus: Corpus, change: dict[str, str]) -> None:
    config = replace(SHORT, train_embedding=True)
    model = Stage1Trainer(corpus, replace(MEAN, **change), config, CPU)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    scalars = steps(model, 19).train_step()
    assert 0 < scalars["mse"] < 2 * model.yardsticks.gene_mean
    still = {name for name, value in model.model.named_parameters() if torch.equal(value, before[name])}
    assert not still


def test_a_non_finite_loss_stops_the_run(corpus: Corpus) -> None:
    model = trainer(corpus)
    steps(model, 2)
    with torch.no_grad():
        model.model.head.bias[0] = float("nan")
    with pytest.raises(RunError, match="not finite at step 2"):
        model.train_step()


def test_collapsed_codes_stop_the_run(corpus: Corpus) -> None:
    model = trainer(corpus, replace(SHORT, patience=1))
    steps(model, 17)
    with torch.no_grad():
        model.model.quantizer.codes.fill_(100.0)
    with pytest.raises(RunError, match="The codes collapsed: 1 in use"):
        model.evaluate()


def test_an_interrupted_run_keeps_its_steps(corpus: Corpus, tmp_path: Path) -> None:
    run = Run(tmp_path)

    def stop(step: int, scalars: dict[str, float]) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_pathways(trainer(corpus), run, stop)
    resumed = trainer(corpus)
    run.resume(resumed, STAGE)
    assert resumed.step == 7
    train_pathways(resumed, run)
    assert_same_state(resumed.state(), steps(trainer(corpus), 20).state())
