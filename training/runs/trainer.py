"""What both stages share: a step in parts and over processes, the average of the weights, early stop, the loop."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scpalm.model.network.collective import total, world_size
from scpalm.training.runs.average import Average
from scpalm.training.runs.config import ConfigError, OptimizerConfig
from scpalm.training.runs.processes import anybody, is_first
from scpalm.training.runs.run import Run, check_finite, interrupt_between_steps, make_optimizer, set_lr

Progress = Callable[[int, dict[str, float]], None]
Part = TypeVar("Part")
COMPILER = "inductor"


class StageTrainer(ABC, Generic[Part]):
    """Trains step by step; ``state`` and ``restore`` make a resumed run the same run, bit for bit.

    A batch belongs to all processes. Each computes its share in ``accumulate`` parts; losses are scaled so that their
    sum over the parts and mean over the processes is the loss of the whole batch.

    Args:
        network: every parameter that is trained, and all that a part's forward pass goes through.
        saved: the modules of a checkpoint, by their names in it.
        compiled: modules that torch.compile takes. held_out: cells that ``measure`` looks at.

    Raises ConfigError for an early stop without such cells.
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
        self.step = 0
        self.best, self.since_best, self.ended = float("inf"), 0, False
        self._options = config
        self._saved = dict(saved)
        if config.compile:
            for module in compiled:
                module.compile(backend=COMPILER)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(list(saved.values()), config)
        self.average = Average(list(saved.values()), config.ema) if config.ema else None
        self.network: nn.Module = network
        if world_size() > 1:
            # Parts of the network rest at times, such as the codes before they start.
            self.network = DistributedDataParallel(network, find_unused_parameters=True)

    @abstractmethod
    def parts(self, step: int) -> list[Part]:
        """This process's share of the batch, on the device, with what each part needs to scale its losses."""

    @abstractmethod
    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """The part's loss and the scalars to report, all scaled as told above."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Held-out errors with the weights in place; the same in every process. Raises RunError on a collapse."""

    def after_step(self) -> dict[str, float]:
        """What follows an update; scalars to report."""
        return {}

    def train_step(self) -> dict[str, float]:
        """One batch; the scalars of the step. Raises RunError when loss or gradient is not finite."""
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
        # One transfer from the device for all of them.
        means = total(torch.stack([value.float() for value in sums.values()])) / world_size()
        values = dict(zip(sums, means.tolist(), strict=True))
        check_finite(means.sum() + norm, self.step)
        del values["loss"]
        values["lr"] = set_lr(self.optimizer, self._options, self.step)
        self.optimizer.step()
        values |= self.after_step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        return values

    def _without_exchange(self) -> Any:
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """bf16 where the device is a GPU and the option is on."""
        if self._options.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out errors of the (averaged) weights beside their yardsticks."""
        for module in self._saved.values():
            module.eval()
        with self._averaged():
            return self.measure()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self.average.in_place() if self.average is not None else nullcontext():
            yield

    def judge(self, error: float) -> bool:
        """Note a held-out error; whether it is the best so far."""
        if error < self.best:
            self.best, self.since_best = error, 0
            return True
        self.since_best += 1
        self.ended = self.since_best >= self._options.early_stop
        return False

    def weights(self) -> dict[str, object]:
        """The modules' states by their names in a checkpoint: of the average where there is one."""
        if self.average is None:
            return {name: module.state_dict() for name, module in self._saved.items()}
        with self._averaged():
            return {name: copy.deepcopy(module.state_dict()) for name, module in self._saved.items()}

    def take(self, state: Mapping[str, Any]) -> None:
        """Load the modules' states. Raises KeyError or RuntimeError when they do not fit."""
        for name, module in self._saved.items():
            module.load_state_dict(state[name])

    def state(self) -> dict[str, object]:
        """All that the next step depends on, whatever the number of processes."""
        own: dict[str, object] = {}
        if self.average is not None:
            own = {"raw": [p.detach().clone() for p in self._every_parameter()], "updates": self.average.updates}
        return {
            "step": self.step,
            "best": self.best,
            "since_best": self.since_best,
            "ended": self.ended,
            "optimizer": self.optimizer.state_dict(),
            **self.weights(),
            **own,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to ``state``. Raises KeyError, RuntimeError or ValueError when it does not fit."""
        self.take(state)
        if self.average is not None and "raw" in state:  # a run that ended early keeps its best weights only
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
        """Let go of worker processes."""


def run_loop(trainer: StageTrainer[Any], run: Run, config: OptimizerConfig, progress: Progress) -> None:
    """Step, evaluate, checkpoint, to the end. The first process writes the files.

    Raises RunError, CorpusError, or KeyboardInterrupt after a last checkpoint.
    """
    stage = trainer.stage
    curves = run.curves(stage) if is_first() else None
    try:
        with interrupt_between_steps() as interrupted:
            while trainer.step < config.steps and not trainer.ended:
                scalars = trainer.train_step()
                last = trainer.step == config.steps
                if trainer.step % config.evaluate_every == 0 or last:
                    scalars |= trainer.evaluate()
                    if curves is not None:
                        curves.add(trainer.step, scalars)
                    _judge(trainer, run, config, scalars)
                progress(trainer.step, scalars)
                stop = anybody(interrupted())
                due = trainer.step % config.checkpoint_every == 0 or last or stop or trainer.ended
                if due and is_first():
                    run.save_checkpoint(stage, trainer.state())
                if stop and not last and not trainer.ended:
                    raise KeyboardInterrupt
    finally:
        trainer.close()
        if curves is not None:
            curves.close()


def _judge(trainer: StageTrainer[Any], run: Run, config: OptimizerConfig, scalars: Mapping[str, float]) -> None:
    """Early stop: keep the best weights in a file of their own, and end with them."""
    if not config.early_stop:
        return
    best = f"{trainer.stage}.best"
    if trainer.judge(scalars["held_out_mse"]) and is_first():
        run.save_checkpoint(best, {"step": trainer.step, **trainer.weights()})
    at_the_end = trainer.ended or (trainer.step == config.steps and trainer.since_best > 0)
    if at_the_end and is_first():
        trainer.take(run.load_checkpoint(best))
        trainer.average = None
