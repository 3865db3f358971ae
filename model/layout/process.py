"""Compute a layout in a separate process, which can be stopped and cannot slow down the service.

The process starts in half a second, so none is kept. A layout of 3,000 cells takes 2 to 4 seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import UserError
from scpalm.model.layout.layout import Layout, LayoutOptions

_MODULE = "scpalm.model.layout.child"
_SECONDS = 1800.0
_BLOCK_BYTES = 1 << 20


class LayoutError(UserError, RuntimeError):
    """A layout was stopped, took too long, or its process died."""


class LayoutProcess:
    """Computes one layout. `stop` may be called from another thread at any time.

    Args:
        options: how to lay out the cells.
        seconds: time limit.
        progress: called with the finished share, from 0 to 1.
    """

    def __init__(
        self,
        options: LayoutOptions,
        *,
        seconds: float = _SECONDS,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._options, self._seconds, self._progress = options, seconds, progress
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reason = ""

    def stop(self, reason: str = "The layout was cancelled.") -> None:
        """Make `compute` raise soon, now or when it is called."""
        with self._lock:
            self._reason = self._reason or reason
            if self._process is not None:
                self._process.kill()

    def compute(self, embedding: NDArray[np.float32]) -> Layout:
        """Lay out the cells of ``embedding [B, width]``. Blocking. Raises LayoutError."""
        process = self._start()
        limit = f"The layout took longer than {self._seconds:g} s. Send fewer cells."
        timer = threading.Timer(self._seconds, self.stop, [limit])
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(process, embedding)
        except (OSError, ValueError, KeyError) as error:  # the process ended early, and its pipes with it
            raise LayoutError(self._reason or "The process that computes the layout died.") from error
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._reason:
                raise LayoutError(self._reason)
            self._process = subprocess.Popen(
                # -P: never import modules from the current folder.
                [sys.executable, "-P", "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": _import_path()},
                start_new_session=True,  # Ctrl-C must reach only the parent
                bufsize=0,
            )
            return self._process

    def _exchange(self, process: subprocess.Popen[bytes], embedding: NDArray[np.float32]) -> Layout:
        assert process.stdin is not None and process.stdout is not None
        array = np.ascontiguousarray(embedding, np.float32)
        request = json.dumps({"shape": array.shape, "options": asdict(self._options)}).encode() + b"\n"
        content = memoryview(request + array.tobytes())
        while content:
            content = content[process.stdin.write(content[:_BLOCK_BYTES]) or 0 :]
        process.stdin.close()
        with os.fdopen(os.dup(process.stdout.fileno()), "rb") as answer:
            while "num_laid_out" not in (line := json.loads(answer.readline())):
                self._progress(float(line["share"]))
            positions = np.frombuffer(_exactly(answer.read(8 * len(array)), 8 * len(array)), np.float32)
            clusters = np.frombuffer(_exactly(answer.read(4 * len(array)), 4 * len(array)), np.int32)
        return Layout(positions.reshape(-1, 2).copy(), clusters.copy(), int(line["num_laid_out"]))


def _exactly(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise ValueError("the answer ends early")
    return content


def _import_path() -> str:
    # The folder of this package comes first, then the absolute folders of this process' own import path.
    root = Path(__file__).parents[3]
    paths = [str(root), *(path for path in sys.path if os.path.isabs(path) and Path(path) not in (root, Path.cwd()))]
    return os.pathsep.join(paths)
