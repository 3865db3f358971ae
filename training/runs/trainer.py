"""What both stages share: training steps in parts and over processes, weight averaging, early stop, the loop."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scpalm.model.network.collective import all_reduce_sum, world_size
from scpalm.training.runs.average import Average
from scpalm.training.runs.config import ConfigError, OptimizerConfig
from scpalm.training.runs.processes import any_process, is_first
from scpalm.training.runs.run import Run, interrupt_between_steps, make_optimizer, set_lr
from scpalm.training.runs.scalars import Scalars

Progress = Callable[[int, dict[str, float]], None]
Part = TypeVar("Part")
COMPILER = "inductor"
# Steps after which the host reads the scalars. A CPU computes at once, so that reading costs nothing there.
_READ_EVERY = {"cpu": 1, "cuda": 10}


class StageTrainer(ABC, Generic[Part]):
    """Trains step by step. With ``state`` and ``restore``, a resumed run equals an uninterrupted one bit for bit.

    A batch is shared by all processes. Each computes its share in ``accumulate`` parts. Losses are scaled so that their
    sum over the parts and mean over the processes is the loss of the whole batch.

    Args:
        network: holds every trained parameter; the forward pass of a part goes through it.
        saved: the modules of a checkpoint, by their names in it.
        compiled: modules for torch.compile. held_out: number of cells that ``measure`` uses.

    Attributes:
        read_every: steps after which a training loop reads the scalars, and finds a loss that is not finite.

    Raises:
        ConfigError: an early stop without held-out cells.
    """

    stage: ClassVar[str]

    def __init__(
        self,
        config: OptimizerConfig,
        device: torch.device,
        network: nn.Module,
        saved: Mapping[str, nn.Module],
        compiled: Sequence[nn.Module],
        held_out: int,
    ) -> None:
        if config.early_stop and not held_out:
            raise ConfigError("early_stop needs held-out cells: build the corpus with held_out above 0.")
        self.device = device
        self.read_every = _READ_EVERY[device.type]
        self.step = 0
        self.best, self.since_best, self.ended = float("inf"), 0, False
        self._options = config
        self._saved = dict(saved)
        self._scalars = Scalars()
        if config.compile:
            for module in compiled:
                module.compile(backend=COMPILER)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(list(saved.values()), config)
        self.average = Average(list(saved.values()), config.ema) if config.ema else None
        self.network: nn.Module = network
        if world_size() > 1:
            # Some parameters take no part in some steps, such as the codes before they start.
            self.network = DistributedDataParallel(network, find_unused_parameters=True)

    @abstractmethod
    def parts(self, step: int) -> list[Part]:
        """This process's share of the batch, on the device, with the weights that scale each part's losses."""

    @abstractmethod
    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """The part's loss and the scalars to report, all scaled as described above."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Held-out errors with the current weights; the same in every process. Raises RunError on a collapse."""

    def after_step(self) -> None:
        """Run after each update, without waiting for the device."""

    def train_step(self) -> dict[str, float]:
        """Train on one batch; returns scalars to report. Raises RunError when loss or gradient is not finite."""
        self.advance()
        return self.read()

    @property
    def planned_steps(self) -> int:
        """Number of steps that the schedule is made for."""
        return self._options.steps

    def plan(self, steps: int) -> None:
        """Change the number of steps that the schedule is made for, within those of the options it was made with."""
        self._options = replace(self._options, steps=steps)

    def read(self) -> dict[str, float]:
        """Scalars of the last step. Raises RunError when a step since the last read was not finite."""
        return self._scalars.read()

    @property
    def due_to_read(self) -> bool:
        """Whether ``read_every`` steps have not been read."""
        return len(self._scalars) >= self.read_every

    def advance(self) -> None:
        """Train on one batch without waiting for the device; ``read`` returns the scalars."""
        for module in self._saved.values():
            module.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        parts = self.parts(self.step)
        for number, part in enumerate(parts):
            with self._without_exchange() if number + 1 < len(parts) else nullcontext():
                loss, scalars = self.loss(part)
                loss.backward()
            for name, value in (scalars | {"loss": loss}).items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._options.clip)
        means = all_reduce_sum(torch.stack([value.float() for value in sums.values()])) / world_size()
        values = dict(zip(sums, means.unbind(), strict=True))
        del values["loss"]
        lr = set_lr(self.optimizer, self._options, self.step)
        self._scalars.add(self.step, values, means.sum() + norm, {"lr": lr})
        self.optimizer.step()
        self.after_step()
        if self.average is not None:
            self.average.update()
        self.step += 1

    def _without_exchange(self) -> Any:
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """bfloat16 on a GPU when the option is on."""
        if self._options.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out errors of the (averaged) weights, with their yardsticks."""
        for module in self._saved.values():
            module.eval()
        with self._averaged():
            return self.measure()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self.average.in_place() if self.average is not None else nullcontext():
            yield

    def record_error(self, error: float) -> bool:
        """Record a held-out error; returns whether it is the best so far."""
        if error < self.best:
            self.best, self.since_best = error, 0
            return True
        self.since_best += 1
        self.ended = self.since_best >= self._options.early_stop
        return False

    def weights(self) -> dict[str, object]:
        """The modules' states by their names in a checkpoint; averaged weights where there is an average."""
        if self.average is None:
            return {name: module.state_dict() for name, module in self._saved.items()}
        with self._averaged():
            return {name: copy.deepcopy(module.state_dict()) for name, module in self._saved.items()}

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Load the modules' states. Raises KeyError or RuntimeError when they do not fit."""
        for name, module in self._saved.items():
            module.load_state_dict(state[name])

    def state(self) -> dict[str, object]:
        """Everything that the next step depends on, for any number of processes."""
        raw: dict[str, object] = {}
        if self.average is not None:
            raw = {"raw": [p.detach().clone() for p in self._every_parameter()], "updates": self.average.updates}
        return {
            "step": self.step,
            "best": self.best,
            "since_best": self.since_best,
            "ended": self.ended,
            "optimizer": self.optimizer.state_dict(),
            **self.weights(),
            **raw,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``. Raises KeyError, RuntimeError or ValueError when it does not fit."""
        self.load_weights(state)
        if self.average is not None and "raw" in state:  # a run that stopped early only keeps its best weights
            self.average.restore([p.detach() for p in self._every_parameter()], int(state["updates"]))
            with torch.no_grad():
                for parameter, raw in zip(self._every_parameter(), state["raw"], strict=True):
                    parameter.copy_(raw)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        self.best, self.since_best = float(state["best"]), int(state["since_best"])
        self.ended = bool(state["ended"])

    def _every_parameter(self) -> list[nn.Parameter]:
        return [p for module in self._saved.values() for p in module.parameters()]

    def close(self) -> None:
        """Stop worker processes."""


def run_loop(trainer: StageTrainer[Any], run: Run, config: OptimizerConfig, progress: Progress) -> None:
    """Train, evaluate and write checkpoints to the end. Only the first process writes files.

    Raises RunError, CorpusError, or KeyboardInterrupt after a final checkpoint.
    """
    stage = trainer.stage
    curves = run.curves(stage) if is_first() else None
    try:
        with interrupt_between_steps() as interrupted:
            while trainer.step < config.steps and not trainer.ended:
                trainer.advance()
                last = trainer.step == config.steps
                evaluates = trainer.step % config.evaluate_every == 0 or last
                scalars = trainer.read() if trainer.due_to_read or evaluates else {}
                if evaluates:
                    scalars |= trainer.evaluate()
                    if curves is not None:
                        curves.add(trainer.step, scalars)
                    _judge(trainer, run, config, scalars)
                progress(trainer.step, scalars)
                stop = any_process(flag=interrupted())
                if trainer.step % config.checkpoint_every == 0 or last or stop or trainer.ended:
                    trainer.read()  # a step that was not finite must not reach a checkpoint
                    if is_first():
                        run.save_checkpoint(stage, trainer.state())
                if stop and not last and not trainer.ended:
                    raise KeyboardInterrupt
    finally:
        trainer.close()
        if curves is not None:
            curves.close()


def _judge(trainer: StageTrainer[Any], run: Run, config: OptimizerConfig, scalars: Mapping[str, float]) -> None:
    """Early stop: save the best weights to a separate file, and finish with them."""
    if not config.early_stop:
        return
    best = f"{trainer.stage}.best"
    if trainer.record_error(scalars["held_out_mse"]) and is_first():
        run.save_checkpoint(best, {"step": trainer.step, **trainer.weights()})
    at_the_end = trainer.ended or (trainer.step == config.steps and trainer.since_best > 0)
    if at_the_end and is_first():
        trainer.load_weights(run.load_checkpoint(best))
        trainer.average = None
