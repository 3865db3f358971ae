"""A training step does not wait for the device: the host may run ahead of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage1Config, Stage2Config
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.run import Run, RunError
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.runs.views_config import ViewsConfig
from scpalm.training.stages.decoder import DecoderTrainer
from scpalm.training.stages.stage1 import Stage1Trainer, train_pathways
from scpalm.training.stages.stage2 import prepare_stage2
from scpalm.training.stages.views import ViewTrainer
from tests.training.tiny import SIZES

STAGE1 = Stage1Config(steps=40, batch_size=16, warmup_steps=5, lr=3e-3, quantizer_start=0.1, patience=2, ema=0.9)
STAGE2 = Stage2Config(
    steps=40,
    batch_size=16,
    warmup_steps=5,
    lr=3e-3,
    clusters=12,
    negatives=6,
    queue=96,
    queue_start=48,
    refit_every=4,
    replicas=2,
)
# Operations whose result has a size, or a value, that the host needs before it can go on.
WAITING = {"_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique_consecutive", "_unique2", "equal"}


class Waits(AssertionError):
    """An operation for which a GPU makes the host wait."""


class NoWaiting(TorchDispatchMode):
    """Raises for each operation that would make the host wait for a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITING:
            raise Waits(name)
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            raise Waits(f"{name} without the size of its result")
        if name in ("index", "index_put", "index_put_"):
            for index in args[1]:
                if index is not None and index.dtype == torch.bool:
                    raise Waits(f"{name} with a mask")
        return func(*args, **(kwargs or {}))


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(*args: object, **kwargs: object) -> Any:
        raise Waits(name)

    return refuse


@contextmanager
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched, NoWaiting():
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"):
            patched.setattr(Tensor, name, _refuse(name))
        yield


def devices() -> list[Any]:
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    return [pytest.param(torch.device("cpu")), pytest.param(torch.device("cuda"), marks=no_gpu)]


@contextmanager
def refusing_to_wait(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if device.type == "cpu":
        with no_waiting(monkeypatch):
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def stage1_trainer(corpus: Corpus, device: torch.device) -> StageTrainer[Any]:
    return Stage1Trainer(corpus, SIZES, STAGE1, device)


def stage2_trainer(corpus: Corpus, device: torch.device) -> StageTrainer[Any]:
    torch.manual_seed(0)
    return prepare_stage2(corpus, PathwayAutoencoder(SIZES).eval(), STAGE2, device)


def decoder_trainer(corpus: Corpus, device: torch.device) -> StageTrainer[Any]:
    return DecoderTrainer(corpus, PathwayAutoencoder(SIZES).eval(), DecoderConfig(steps=40, batch_size=16), device)


def view_trainer(corpus: Corpus, device: torch.device) -> StageTrainer[Any]:
    basis = stage1_trainer(corpus, device).model.embedding.basis  # type: ignore[attr-defined]
    return ViewTrainer(corpus, basis, SIZES, ViewsConfig(steps=40, batch_size=16), device)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("make", [stage1_trainer, stage2_trainer, decoder_trainer, view_trainer])
def test_a_step_does_not_wait_for_the_device(
    corpus: Corpus,
    make: Callable[[Corpus, torch.device], StageTrainer[Any]],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make(corpus, device)
    for _ in range(6):  # the codes start, every gene set is seen, k-means is ready
        trainer.advance()
    with refusing_to_wait(device, monkeypatch):
        for _ in range(20):
            trainer.advance()
    scalars = trainer.read()
    assert trainer.step == 26 and "mse" in scalars
    trainer.close()


def test_the_watch_sees_operations_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(5)
    for operation in (
        lambda: x.sum().item(),
        lambda: x[x > 2],
        lambda: torch.bincount(x),
        lambda: torch.nonzero(x),
        lambda: torch.repeat_interleave(x, x),
        lambda: bool(x.sum() > 1),
        lambda: x.cpu(),
    ):
        with no_waiting(monkeypatch), pytest.raises(Waits):
            operation()


def test_scalars_read_late_are_those_read_at_once(corpus: Corpus) -> None:
    late, once = stage1_trainer(corpus, torch.device("cpu")), stage1_trainer(corpus, torch.device("cpu"))
    for _ in range(15):
        late.advance()
        expected = once.train_step()
    assert late.read() == late.read() == expected


def test_a_loss_that_is_not_finite_is_found_late_and_named(corpus: Corpus, tmp_path: Path) -> None:
    trainer = Stage1Trainer(corpus, SIZES, replace(STAGE1, ema=0), torch.device("cpu"))
    trainer.read_every = 4
    run = Run(tmp_path)
    run.create({})
    seen: list[int] = []

    def break_after_step_5(step: int, scalars: dict[str, float]) -> None:
        seen.append(step)
        if step == 5:
            with torch.no_grad():
                trainer.model.head.bias[0] = float("nan")

    with pytest.raises(RunError, match="not finite at step 5"):
        train_pathways(trainer, run, break_after_step_5)
    assert seen == list(range(1, 8))  # read at step 8
    assert not run.has_checkpoint(trainer.stage)
