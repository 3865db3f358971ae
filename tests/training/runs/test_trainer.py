from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs import trainer as shared
from scpalm.training.runs.config import ConfigError, Stage1Config
from scpalm.training.runs.run import Run
from scpalm.training.stages.stage1 import STAGE, Stage1Trainer, train_pathways
from tests.training.same import assert_same_state
from tests.training.stages.test_stage1 import SHORT, steps, trainer

# Without batch norm (the embedding is frozen) and codes, whose statistics cover only a part of the batch.
PLAIN = replace(SHORT, quantizer=False)


def parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for accumulate in (1, 4):
        model = trainer(corpus, replace(PLAIN, accumulate=accumulate))
        still = model.model.standardise.eval()
        monkeypatch.setattr(still, "train", partial(nn.Module.requires_grad_, still))
        scalars = model.train_step()
        found = {n: p.grad for n, p in model.model.named_parameters() if p.grad is not None}
        gradients.append(found | {"mse": torch.tensor(scalars["mse"])})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_parts_and_workers_resume_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(SHORT, accumulate=2, ema=0.9, workers=1, block=4)
    whole = steps(trainer(corpus, config), 20)
    run = Run(tmp_path)
    run.save_checkpoint(STAGE, steps(trainer(corpus, config), 7).state())
    resumed = trainer(corpus, replace(config, workers=0))
    run.resume(resumed, STAGE)
    assert_same_state(steps(resumed, 13).state(), whole.state())
    whole.close()


class TestAverage:
    def test_is_between_the_weights_it_has_seen(self, corpus: Corpus) -> None:
        model, plain = trainer(corpus, replace(SHORT, ema=0.99)), trainer(corpus)
        name = "head.weight"
        expected = parameters(model.model)[name]
        for step in range(1, 6):
            model.train_step()
            plain.train_step()
            expected = expected.lerp(parameters(model.model)[name], 1 - min(0.99, (1 + step) / (10 + step)))
        # The average does not affect training.
        assert_same_state(parameters(model.model), parameters(plain.model))
        saved = model.state()["model"]
        assert isinstance(saved, dict)
        torch.testing.assert_close(saved[name], expected)
        assert not torch.equal(saved[name], parameters(model.model)[name])

    def test_is_what_is_evaluated(self, corpus: Corpus) -> None:
        model, other = steps(trainer(corpus, replace(SHORT, ema=0.99)), 8), trainer(corpus)
        before = parameters(model.model)
        scalars = model.evaluate()
        assert_same_state(parameters(model.model), before)
        other.load_weights(model.state())
        other.step, other.codes_started = model.step, model.codes_started
        assert other.evaluate() == scalars
        assert scalars != steps(trainer(corpus), 8).evaluate()


def test_it_ends_with_the_best_weights(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SHORT, early_stop=2, evaluate_every=2, checkpoint_every=100)
    model, run = trainer(corpus, config), Run(tmp_path)
    errors = iter([0.5, 0.4, 0.6, 0.41, 0.3])
    monkeypatch.setattr(model, "measure", lambda: {"held_out_mse": next(errors)})
    at: dict[int, dict[str, Tensor]] = {}
    train_pathways(model, run, lambda step, scalars: at.update({step: parameters(model.model)}))
    assert max(at) == 8  # steps 6 and 8 did not improve on 0.4 at step 4
    saved = run.load_checkpoint(STAGE)
    assert (saved["step"], saved["ended"], saved["best"]) == (8, True, 0.4)
    for name, weight in at[4].items():
        assert torch.equal(saved["model"][name], weight), name
    # The stage counts as finished, also after it is resumed.
    run.save_config({STAGE: {"steps": 20}})
    assert run.finished(STAGE)["step"] == 8
    resumed = trainer(corpus, config)
    run.resume(resumed, STAGE)
    train_pathways(resumed, run)
    assert resumed.step == 8


def test_it_ends_with_the_best_weights_also_when_the_steps_are_over(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SHORT, steps=6, early_stop=3, evaluate_every=2)
    model, run = trainer(corpus, config), Run(tmp_path)
    errors = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr(model, "measure", lambda: {"held_out_mse": next(errors)})
    at: dict[int, Tensor] = {}
    train_pathways(model, run, lambda step, s: at.update({step: parameters(model.model)["head.weight"]}))
    assert torch.equal(run.load_checkpoint(STAGE)["model"]["head.weight"], at[4])


def test_early_stop_needs_held_out_cells(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpus.__dict__, "held_out_rows", corpus.held_out_rows[:0])
    with pytest.raises(ConfigError, match="early_stop needs held-out cells"):
        trainer(corpus, replace(SHORT, early_stop=1))


def test_a_compiled_network_computes_the_same(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is captured and split as usual. Only the code generator, which takes minutes, is left out.
    monkeypatch.setattr(shared, "COMPILER", "eager")
    model, plain = steps(trainer(corpus, replace(SHORT, compile=True)), 7), steps(trainer(corpus), 7)
    assert model.model.encoder._compiled_call_impl is not None
    torch.testing.assert_close(parameters(model.model), parameters(plain.model), rtol=1e-4, atol=1e-5)
    assert model.state()["model"].keys() == plain.state()["model"].keys()  # type: ignore[attr-defined]


def test_the_default_is_one_part_one_process_and_no_average() -> None:
    config = Stage1Config()
    assert (config.accumulate, config.ema, config.early_stop, config.compile, config.workers) == (1, 0, 0, False, 0)


KILLED = replace(SHORT, steps=24, checkpoint_every=1)


def go_on(corpus: Path, folder: Path, threads: int) -> Stage1Trainer:
    """Train to the end, from the last checkpoint if there is one. Sums depend on the number of threads."""
    torch.set_num_threads(threads)
    model, run = trainer(Corpus(corpus), KILLED), Run(folder)
    if run.has_checkpoint(STAGE):
        run.resume(model, STAGE)
    train_pathways(model, run)
    return model


def test_a_killed_run_resumes_from_its_last_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    run = Run(tmp_path)
    # Not forked: the copy of a process with threads may wait for a lock that is never released.
    context = multiprocessing.get_context("spawn")
    reached = [0]
    for moment in (0.01, 0.03, 0.08):
        child = context.Process(target=go_on, args=(corpus.path, tmp_path, torch.get_num_threads()))
        child.start()
        deadline = time.monotonic() + 120
        while child.is_alive() and time.monotonic() < deadline:  # until it has a later checkpoint than the child before
            if run.has_checkpoint(STAGE) and run.load_checkpoint(STAGE)["step"] > reached[-1]:
                break
            time.sleep(0.005)
        time.sleep(moment)
        child.kill()
        child.join(60)
        # There is always a valid checkpoint, and never an older one.
        reached.append(run.load_checkpoint(STAGE)["step"])
    assert 0 < reached[1] <= reached[2] <= reached[3]
    assert_same_state(
        go_on(corpus.path, tmp_path, torch.get_num_threads()).state(), steps(trainer(corpus, KILLED), 24).state()
    )
