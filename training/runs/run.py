"""A run: one folder with options, checkpoints and curves. It may be killed at any moment and resumed."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import nn

from scpalm.model.network.config import NetworkConfig
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.training.runs.config import ConfigError, OptimizerConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Section = TypeVar("Section", bound=NetworkConfig | OptimizerConfig)


class RunError(RuntimeError):
    """A run cannot start or continue; the message says why and what to try."""


class Resumable(Protocol):
    """A trainer that continues bit for bit from the state it put into a checkpoint."""

    def restore(self, state: dict[str, object]) -> None: ...


class Run:
    """``RUN/``: ``config.json``, ``stage1.pt``, ``stage2.pt`` (checkpoints), ``curves.jsonl``, ``tensorboard/``."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a new run. Raises RunError when the folder holds one already."""
        if (self.path / "config.json").exists():
            raise RunError(f"{self.path} already holds a run. Continue it with --resume, or choose another folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        self.save_config(config)

    def save_config(self, config: Mapping[str, Any]) -> None:
        write_atomically(self.path / "config.json", json.dumps(config, indent=1).encode())

    def config(self) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} is not a run ({error}). Start one with `scpalm-train pathways`.") from error
        return loaded

    def section(self, name: str, kind: type[Section]) -> Section:
        """One section of ``config.json``: ``network``, ``stage1`` or ``stage2``. Raises RunError when it is invalid."""
        try:
            return kind(**self.config()[name])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.path}/config.json has no valid '{name}' ({error!r}). Another version wrote it, "
                "or it was edited. Train again."
            ) from error

    def has_checkpoint(self, stage: str) -> bool:
        return (self.path / f"{stage}.pt").exists()

    def save_checkpoint(self, stage: str, state: Mapping[str, Any]) -> None:
        """Replace ``<stage>.pt``; the old file stays valid until the new one is on disk.

        Raises RunError when it cannot be written, e.g. on a full disk.
        """
        target = self.path / f"{stage}.pt"
        partial = target.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:  # torch reports some disk errors as RuntimeError
            partial.unlink(missing_ok=True)
            raise RunError(f"{target} could not be written ({error}). The previous checkpoint is intact.") from error

    def load_checkpoint(self, stage: str) -> dict[str, Any]:
        target = self.path / f"{stage}.pt"
        try:
            loaded: dict[str, Any] = torch.load(target, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            raise RunError(f"{target} cannot be read ({error}). Train the stage first.") from error
        return loaded

    def fill(self, module: nn.Module, stage: str, part: str) -> None:
        """Load ``part`` of a stage's checkpoint into ``module``. Raises RunError when it does not fit."""
        loaded = self.load_checkpoint(stage)
        try:
            module.load_state_dict(loaded[part])
        except (KeyError, RuntimeError) as error:
            raise _misfit(self.path / f"{stage}.pt", error) from error

    def resume(self, trainer: Resumable, stage: str) -> None:
        """Restore a trainer from the stage's last checkpoint. Raises RunError when it does not fit."""
        loaded = self.load_checkpoint(stage)
        try:
            trainer.restore(loaded)
        except (KeyError, RuntimeError, ValueError) as error:
            raise _misfit(self.path / f"{stage}.pt", error) from error

    def finished(self, stage: str) -> dict[str, Any]:
        """The checkpoint of a finished stage. Raises RunError for an unfinished one."""
        state, steps = self.load_checkpoint(stage), self.config()[stage]["steps"]
        if (step := state.get("step", 0)) < steps and not state.get("ended"):
            raise RunError(f"{self.path}: {stage} is at step {step} of {steps}. Finish it with --resume.")
        return state

    def check_corpus(self, path: Path, digest: str) -> None:
        """Raises RunError when this is not the corpus that the run was started on."""
        saved = self.config()
        if saved.get("corpus_digest", digest) != digest:
            raise RunError(
                f"{path} is not the corpus that {self.path} was trained on ({saved.get('corpus')}), or it was "
                "rebuilt since. Name that corpus, or start a new run."
            )

    def curves(self, stage: str) -> Curves:
        return Curves(self.path, stage)


def _misfit(checkpoint: Path, error: Exception) -> RunError:
    return RunError(f"{checkpoint} does not fit the network ({error}). Another version wrote it. Train again.")


class Curves:
    """Writes the scalars of a stage to ``curves.jsonl``, and to TensorBoard if it is installed."""

    def __init__(self, path: Path, stage: str) -> None:
        self._stage = stage
        self._writer: SummaryWriter | None = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path / "tensorboard" / stage))
        self._file = (path / "curves.jsonl").open("a")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{self._stage}/{name}", value, step)
        self._file.write(json.dumps({"stage": self._stage, "step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()


@contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Within the block, Ctrl-C and SIGTERM only set the returned flag: half a step could not be resumed exactly."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replaced_when_whole(path) as partial:
        partial.write_bytes(content)


def make_optimizer(modules: list[nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices of linear layers only."""
    linear = {id(m.weight) for module in modules for m in module.modules() if isinstance(m, nn.Linear)}
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in linear], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak; returns the rate it set."""
    if step < config.warmup_steps:
        lr = config.lr * (step + 1) / config.warmup_steps
    else:
        done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
        lr = config.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def check_finite(loss: float, step: int) -> None:
    """Raises RunError for a loss that is NaN or infinite."""
    if not math.isfinite(loss):
        raise RunError(
            f"Loss or gradient is not finite at step {step}. The last checkpoint is intact: train again with lower lr "
            "(--set lr=...), a smaller clip, or longer warmup_steps."
        )


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one. Raises ConfigError for an unknown name or a missing GPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdigit()):
        raise ConfigError(f"Unknown device '{name}'. Use --device auto, cpu, cuda or cuda:n.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name} was requested, but PyTorch sees {torch.cuda.device_count()} GPUs. "
            "Use --device cpu or auto."
        )
    return torch.device(name)
