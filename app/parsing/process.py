"""The service's side of a parser process: start it with limits, send commands, and replace it when it dies.

The child is a fresh interpreter, not a fork. It has no copy of the service's memory, few of its environment variables,
and each library in it uses a single thread.
"""

from __future__ import annotations

import math
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

from scpalm.app.parsing.isolation.isolate import Folders, child_environment
from scpalm.app.parsing.messages import Message, MessageError, receive, send
from scpalm.app.parsing.wire import read_error

_SETUP_SECONDS = 120.0
_EXIT_SECONDS = 2.0
# Nothing in the process itself causes these: a person, or the kernel for want of memory, ended it.
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_LAST_KINDS = ("done", "error", "memory", "fault")
CHILD_MODULE = "scpalm.app.parsing.child"


class ProcessError(Exception):
    """The process did not finish a command.

    Attributes:
        reason: ``timeout``, ``killed``, ``ended``, ``closed``, ``memory``, ``fault`` or ``message``; ``ended`` is a
            signal from outside, so the command is not at fault. The message of the error has details.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class ParserLimits:
    """Limits per process and upload.

    Attributes:
        memory_bytes: memory in addition to what the process uses after its setup.
        seconds: limit on the wall time and on the CPU time of a command.
        max_cells: maximum number of cells in an upload; None for no limit.
        max_bytes: maximum size of an upload, before and after decompression; None for no limit.
    """

    memory_bytes: int
    seconds: float
    max_cells: int | None = None
    max_bytes: int | None = None


def default_limits(
    memory_bytes: int, *, seconds: float = 120.0, max_cells: int | None = None, max_bytes: int | None = None
) -> ParserLimits:
    """Limits with ``memory_bytes`` of memory per upload, but at most 8 GiB."""
    return ParserLimits(min(8 << 30, memory_bytes), seconds, max_cells, max_bytes)


class ParserProcess:
    """One child process. `call` and `stream` block and allow one thread at a time; `cancel` is safe from any thread.

    Args:
        genes: ``genes.parquet`` of the bundle.
        limits: limits per process and upload.
        folders: what the child may read in addition to the genes and Python, and write.
        module: module that the child runs; tests replace it.
    """

    def __init__(self, genes: Path, limits: ParserLimits, folders: Folders, module: str = CHILD_MODULE) -> None:
        self._genes, self._limits, self._module = genes, limits, module
        self._folders = replace(folders, readable=(*folders.readable, genes.absolute()))
        self._missing: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._cpu_at_start: float | None = None
        self._busy = False
        self._killed = False
        self._closed = False
        self._launch()

    @property
    def pid(self) -> int:
        """Process ID of the child."""
        return self._process.pid

    @property
    def missing_isolation(self) -> tuple[str, ...]:
        """What the kernel does not offer for the isolation of the child, once it is set up."""
        return self._missing

    def _launch(self) -> None:
        parent_socket, child_socket = socket.socketpair()
        with child_socket:
            process = subprocess.Popen(
                # -P: never import modules from the current folder.
                [sys.executable, "-P", "-m", self._module, str(child_socket.fileno())],
                env=child_environment(self._folders),
                pass_fds=(child_socket.fileno(),),
                stdin=subprocess.DEVNULL,
                # Ctrl-C must reach only the parent; the child exits when the parent closes the connection.
                start_new_session=True,
            )
        # A process that stops in the middle of a message must not block a thread of the service.
        timeout = struct.pack("ll", math.ceil(self._limits.seconds), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            parent_socket.setsockopt(socket.SOL_SOCKET, option, timeout)
        with self._lock:
            self._process, self._connection = process, Connection(parent_socket.detach())
            self._is_set_up = False
            if self._closed or self._killed:  # its predecessor was ended meanwhile
                process.kill()
            if self._closed:
                process.wait()
                self._connection.close()
        limits = self._limits
        content = {
            "genes": str(self._genes),
            "memory_bytes": limits.memory_bytes,
            "seconds": limits.seconds,
            "max_cells": limits.max_cells,
            "max_bytes": limits.max_bytes,
            "folders": self._folders.as_dict(),
        }
        # An error means that the process is dead already, which the next message shows.
        with suppress(OSError):
            send(self._connection, Message("setup", content))

    def set_up(self) -> None:
        """Wait until the process is ready. Raises BundleError, ProcessError."""
        if not self._is_set_up:
            reply = self._receive(time.monotonic() + _SETUP_SECONDS, _SETUP_SECONDS)
            _raise_failure(reply)
            self._missing = tuple(map(str, reply.content.get("missing_isolation", ())))
            self._is_set_up = True

    def call(self, command: Message) -> Message:
        """The first message of the reply. Raises ProcessError, or the error that the child raised."""
        messages = list(self.stream(command))
        if not messages:
            raise ProcessError("message", "the parser did not reply")
        return messages[0]

    def stream(self, command: Message) -> Iterator[Message]:
        """Yield the messages of the reply as they arrive. Raises ProcessError, or the error that the child raised.

        Closing the iterator early kills the process, and a new one replaces it.
        """
        with self._busy_process():
            ends = time.monotonic() + self._limits.seconds
            complete = False
            try:
                send(self._connection, command)
                while True:
                    message = self._receive(ends, self._limits.seconds)
                    complete = message.kind in _LAST_KINDS
                    _raise_failure(message)
                    if complete:
                        return
                    paused = time.monotonic()
                    yield message
                    # The caller may wait for memory, which is no fault of the upload.
                    ends += time.monotonic() - paused
            finally:
                # The caller closed the iterator, or the reply is broken: the next one must not begin with its rest.
                if not complete:
                    self._process.kill()
                    self._process.wait()

    @contextmanager
    def _busy_process(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ProcessError("closed", "the service is shutting down")
            self._busy = True
        try:
            if self._process.poll() is not None:
                self._replace()
            self.set_up()
            self._cpu_at_start = _cpu_seconds(self._process.pid)
            yield
        except OSError as error:
            raise self._dead() from error
        finally:
            self._cpu_at_start = None
            with self._lock:
                self._busy = False  # from now on `cancel` does nothing
                killed, self._killed = self._killed, False
                closed = self._closed
            if killed or closed:  # wait for its end, so that the next call does not see it as alive
                self._process.kill()
                self._process.wait()
            if closed:
                self._disconnect()
            elif self._process.poll() is not None:
                self._replace()

    def cpu_seconds_of_command(self) -> float:
        """CPU time that the running command has taken; 0 if none runs, or its process still starts."""
        started = self._cpu_at_start
        return 0.0 if started is None else _cpu_seconds(self._process.pid) - started

    def cancel(self) -> None:
        """Abort the running command, if any. It raises ProcessError, and a new process replaces the killed one."""
        with self._lock:
            if self._busy:
                self._killed = True
                self._process.kill()

    def close(self) -> None:
        """Kill the process. A running command raises ProcessError, and its thread closes the connection."""
        with self._lock:
            self._closed = True
            process, busy = self._process, self._busy
            process.kill()
        process.wait()
        if not busy:
            self._disconnect()

    def _disconnect(self) -> None:
        """Close the connection. Two threads at once would close its descriptor twice: the second time another's."""
        with self._lock:
            self._connection.close()

    def _replace(self) -> None:
        self._process.wait()
        self._disconnect()
        self._launch()

    def _receive(self, ends: float, limit: float) -> Message:
        """The next message, by the monotonic time ``ends``. Any error kills the process."""
        try:
            if not self._connection.poll(max(0.0, ends - time.monotonic())):
                raise BlockingIOError
            return receive(self._connection, self._limits.memory_bytes)
        except BlockingIOError as error:  # also when the process stops in the middle of a message
            self._process.kill()
            self._process.wait()
            raise ProcessError("timeout", f"it took longer than {limit:g} s") from error
        except (EOFError, OSError) as error:
            raise self._dead() from error
        except MessageError as error:
            self._process.kill()
            self._process.wait()
            raise ProcessError("message", str(error)) from error

    def _dead(self) -> ProcessError:
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:  # it has closed its connection but does not exit
            self._process.kill()
            self._process.wait()
            return ProcessError("killed", "the process that read it closed its connection")
        if code == -signal.SIGXCPU:
            return ProcessError("timeout", f"it took more than {self._limits.seconds:g} s of CPU time")
        if self._closed:
            return ProcessError("closed", "the service is shutting down")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        from_outside = -code in _OUTSIDE and not self._killed
        return ProcessError("ended" if from_outside else "killed", f"the process that read it ended with {name}")


def _raise_failure(message: Message) -> None:
    if message.kind == "error":
        raise read_error(message)
    if message.kind in ("memory", "fault"):
        raise ProcessError(message.kind, str(message.content.get("detail", "")))


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process so far; 0 if it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
