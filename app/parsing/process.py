"""One parser process, seen from the service: started with limits, and replaced when it dies.

The child is a fresh interpreter, not a fork: it has no threads, no copy of the service's memory or environment, and
one thread a library.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import scpalm
from scpalm.app.parsing.messages import Message, MessageError, receive, send
from scpalm.app.parsing.wire import read_error

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "HOME", "LD_LIBRARY_PATH", "HDF5_PLUGIN_PATH")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")
_SETUP_SECONDS = 120.0
CHILD_MODULE = "scpalm.app.parsing.child"


class ProcessError(Exception):
    """The process did not finish a command.

    Attributes:
        reason: ``timeout``, ``killed``, ``memory``, ``fault`` or ``message``; the text says more.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class ParserLimits:
    """Limits of one process and of one upload.

    Attributes:
        memory_bytes: beyond what the process holds once set up. seconds: wall and CPU time of one command.
        max_cells, max_bytes: of one upload, bytes also after decompression; None for no limit.
    """

    memory_bytes: int
    seconds: float
    max_cells: int | None = None
    max_bytes: int | None = None


class ParserProcess:
    """One child. `call` and `stream` block, from one thread at a time; `cancel` may come from any other.

    Args:
        genes: the bundle's ``genes.parquet``. module: what the child runs (tests run others).
    """

    def __init__(self, genes: Path, limits: ParserLimits, module: str = CHILD_MODULE) -> None:
        self._genes, self._limits, self._module = genes, limits, module
        self._lock = threading.Lock()
        self._busy = False
        self._killed = False
        self._closed = False
        self._launch()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: the folder the service was started in must not provide modules.
                [sys.executable, "-P", "-m", self._module, str(theirs.fileno())],
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for the parent; the child ends when the parent closes the connection.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._is_set_up = False
        limits = self._limits
        content = {
            "genes": str(self._genes),
            "memory_bytes": limits.memory_bytes,
            "seconds": limits.seconds,
            "max_cells": limits.max_cells,
            "max_bytes": limits.max_bytes,
        }
        send(self._connection, Message("setup", content))

    def set_up(self) -> None:
        """Wait until the process is ready. Raises BundleError, ProcessError."""
        if not self._is_set_up:
            self._receive(_SETUP_SECONDS)
            self._is_set_up = True

    def call(self, command: Message) -> Message:
        """The first message of the answer. Raises what the child raised, or ProcessError."""
        messages = list(self.stream(command))
        if not messages:
            raise ProcessError("message", "the parser gave no answer")
        return messages[0]

    def stream(self, command: Message) -> Iterator[Message]:
        """The messages of the answer, each when it is there. Raises what the child raised, or ProcessError.

        Closing the iterator early ends the process; a new one takes over.
        """
        with self._at_work():
            send(self._connection, command)
            ends = time.monotonic() + self._limits.seconds
            finished = False
            try:
                while True:
                    message = self._receive(max(0.0, ends - time.monotonic()))
                    if message.kind == "done":
                        finished = True
                        return
                    yield message
            except Exception:
                finished = True
                raise
            finally:
                if not finished:  # the rest is not wanted
                    self._process.kill()
                    self._process.wait()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ProcessError("killed", "the service is shutting down")
            self._busy = True
        try:
            if self._process.poll() is not None:
                self._replace()
            self.set_up()
            yield
        except OSError as error:
            raise self._dead() from error
        finally:
            with self._lock:
                self._busy = False
                killed, self._killed = self._killed, False
            if killed:  # maybe after its last message: the next call must not take it for alive
                self._process.wait()
            if self._process.poll() is not None and not self._closed:
                self._replace()

    def cancel(self) -> None:
        """End the command that runs now, if one does: it raises ProcessError, and a new process takes over."""
        with self._lock:
            if self._busy:
                self._killed = True
                self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        with self._lock:
            if not self._busy:
                self._connection.close()

    def _replace(self) -> None:
        self._process.wait()
        self._connection.close()
        self._launch()

    def _receive(self, seconds: float) -> Message:
        try:
            if not self._connection.poll(seconds):
                self._process.kill()
                self._process.wait()
                raise ProcessError("timeout", f"it took longer than {seconds:g} s")
            message = receive(self._connection, self._limits.memory_bytes)
            if message.kind == "error":
                raise read_error(message)
        except (EOFError, OSError) as error:
            raise self._dead() from error
        except MessageError as error:
            self._process.kill()
            self._process.wait()
            raise ProcessError("message", str(error)) from error
        if message.kind in ("memory", "fault"):
            raise ProcessError(message.kind, str(message.content.get("detail", "")))
        return message

    def _dead(self) -> ProcessError:
        self._process.kill()
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return ProcessError("timeout", f"it took more than {self._limits.seconds:g} s of CPU time")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return ProcessError("killed", f"the process that read it ended with {name}")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # The folder of this very package first, then what the service itself imports from, but no relative folder.
    ours = Path(scpalm.__file__).parents[1]
    paths = [str(ours), *(path for path in sys.path if os.path.isabs(path) and Path(path) not in (ours, Path.cwd()))]
    return kept | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": os.pathsep.join(paths)}
