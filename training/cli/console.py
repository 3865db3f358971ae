"""Shared by all commands: progress bars on stderr, and errors as one line with exit status 1 or 2."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import typer
from tqdm import tqdm

if TYPE_CHECKING:
    from scpalm.model.genes.matching.alignment import Coverage
    from scpalm.training.runs.run import Run
    from scpalm.training.runs.trainer import StageTrainer

P = ParamSpec("P")
R = TypeVar("R")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Print expected errors of a command as one line on stderr, with status 2 for wrong use and 1 otherwise."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from scpalm.model.errors import BundleError, InputError
        from scpalm.training.corpus.reader import CorpusError
        from scpalm.training.runs.config import ConfigError
        from scpalm.training.runs.run import RunError

        try:
            return function(*args, **kwargs)
        except ConfigError as error:
            status, text = 2, str(error)
        except (InputError, BundleError, CorpusError, RunError, OSError, ValueError) as error:
            status, text = 1, str(error)
        except KeyboardInterrupt:
            status, text = 1, "Stopped. Training keeps its checkpoint: continue with --resume."
        typer.echo(f"error: {' '.join(text.split())}", err=True)
        raise typer.Exit(status)

    return wrapped


class Bar:
    """A progress bar."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def advance(self, amount: int, note: str = "") -> None:
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)

    def move_to(self, position: int, scalars: Mapping[str, float] | None = None) -> None:
        if scalars:
            shown = ("mse", "held_out_mse", "gene_mean_mse", "pca_mse", "used_codes", "contrastive")
            self._bar.set_postfix({k: f"{scalars[k]:.4g}" for k in shown if k in scalars}, refresh=False)
        self._bar.update(position - self._bar.n)


class CellBar:
    """Shows how many cells have been read: a `scpalm.model.progress.Progress`, and a context manager."""

    def __init__(self) -> None:
        self._bar = tqdm(desc="cells", unit=" cells", file=sys.stderr, dynamic_ncols=True, total=0)

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        self._bar.total += num_cells
        self._bar.refresh()

    def tell(self, note: Mapping[str, object]) -> None:
        return

    def advance(self, num_cells: int) -> None:
        self._bar.update(num_cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.leave = error is None
        self._bar.close()


@contextmanager
def progress_bar(total: int | None, title: str, *, unit: str, start: int = 0) -> Iterator[Bar]:
    """A bar on stderr; only the first of several training processes shows it."""
    silent = os.environ.get("RANK", "0") != "0"
    with tqdm(
        total=total, desc=title, unit=unit, initial=start, file=sys.stderr, dynamic_ncols=True, disable=silent
    ) as bar:
        yield Bar(bar)


def key_value(text: str) -> tuple[str, str]:
    """Split ``key=value``. Raises ConfigError."""
    from scpalm.training.runs.config import ConfigError

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set takes key=value, got '{text}'.")
    return key, value


def train_with_bar(trainer: StageTrainer[Any], steps: int, run: Run, train: Callable[..., None], title: str) -> None:
    """Train a stage and show its progress."""
    with progress_bar(steps, title, unit="step", start=trainer.step) as bar:
        train(trainer, run, lambda step, scalars: bar.move_to(step, scalars))
