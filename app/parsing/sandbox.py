"""A child process with limits: runs functions on untrusted input, and is replaced when it dies of it.

The child is a fresh interpreter, neither a fork nor a copy of the main script: no threads, no secrets of the parent's
environment, one thread a library.
"""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeVar, cast

T = TypeVar("T")

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "HOME", "LD_LIBRARY_PATH", "HDF5_PLUGIN_PATH")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")
_SETUP_SECONDS = 120.0
_TOGETHER_BYTES = 512 << 10
_COMMAND = "import sys; from scpalm.app.parsing.sandbox import serve; serve(int(sys.argv[1]))"


class SandboxError(Exception):
    """The child did not return: ``reason`` is ``timeout``, ``killed``, ``memory`` or ``fault``; the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Of one child: ``memory_bytes`` beyond what it holds once set up, ``seconds`` of wall and of CPU time a call."""

    memory_bytes: int
    seconds: float


class Sandbox:
    """One child. `call` blocks, from one thread at a time; `cancel` may come from any other.

    Args:
        setup: runs once in every new child, with ``arguments``; both must pickle.
    """

    def __init__(self, setup: Callable[..., None], arguments: tuple[object, ...], limits: Limits) -> None:
        self._setup = (setup, arguments)
        self._limits = limits
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
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= dict.fromkeys(_ONE_THREAD, "1")
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno())],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # Ctrl-C is the parent's to handle: the child ends when the parent closes the connection.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._is_set_up = False
        _send(self._connection, (*self._setup, self._limits))

    def set_up(self) -> None:
        """Wait until the child is ready for calls. Raises what the setup raised, or SandboxError."""
        if not self._is_set_up:
            self._receive(_SETUP_SECONDS)
            self._is_set_up = True

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """``function(*arguments)`` in the child. Raises what it raised, or SandboxError when it died."""
        with self._at_work():
            _send(self._connection, (function, arguments))
            return cast(T, self._receive(self._limits.seconds)[1])

    def stream(self, function: Callable[..., Iterator[T]], *arguments: object) -> Iterator[T]:
        """What the generator ``function(*arguments)`` yields in the child, each when it is there; raises as `call`."""
        with self._at_work():
            _send(self._connection, (function, arguments))
            ends = time.monotonic() + self._limits.seconds
            finished = False
            try:
                while True:
                    kind, value = self._receive(max(0.0, ends - time.monotonic()))
                    if kind == "returned":
                        finished = True
                        return
                    yield cast(T, value)
            except Exception:
                finished = True
                raise
            finally:
                if not finished:  # nobody wants the rest
                    self._process.kill()
                    self._process.wait()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise SandboxError("killed", "the service is shutting down")
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
            if killed:  # perhaps after its last word: it must not be taken for alive, or the next call finds it dead
                self._process.wait()
            if self._process.poll() is not None and not self._closed:
                self._replace()

    def cancel(self) -> None:
        """End the call that runs now, if one does: it raises SandboxError, and a new child takes over."""
        with self._lock:
            if self._busy:
                self._killed = True
                self._process.kill()

    def close(self) -> None:
        """End the child."""
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

    def _receive(self, seconds: float) -> tuple[str, object]:
        try:
            if not self._connection.poll(seconds):
                self._process.kill()
                self._process.wait()
                raise SandboxError("timeout", f"it took longer than {seconds:g} s")
            kind, value = _receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._dead() from error
        if kind == "raised":
            raise cast(BaseException, value)
        if kind not in ("returned", "item"):
            raise SandboxError(str(kind), str(value))
        return str(kind), value

    def _dead(self) -> SandboxError:
        self._process.kill()
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return SandboxError("timeout", f"it took more than {self._limits.seconds:g} s of CPU time")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return SandboxError("killed", f"the process that read it ended with {name}")


_Setup = tuple[Callable[..., None], tuple[object, ...], Limits]
_Call = tuple[Callable[..., object], tuple[object, ...]]


def serve(descriptor: int) -> None:
    """The child's life: set up, then one call after the other until the parent hangs up."""
    with Connection(descriptor) as connection:
        try:
            setup, arguments, limits = cast(_Setup, _receive(connection))
            if not _answer(connection, setup, arguments):
                return
            _limit_memory(limits.memory_bytes)
            while True:
                function, arguments = cast(_Call, _receive(connection))
                _limit_cpu(limits.seconds)
                _answer(connection, function, arguments)
        except (EOFError, OSError):
            return


def _answer(connection: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> bool:
    # Imported here: the parent's side does not need them.
    from scpalm.app.errors import ServiceError
    from scpalm.model.errors import BundleError, InputError

    try:
        result = function(*arguments)
        if isinstance(result, Generator):
            for item in result:
                _send(connection, ("item", item))
            result = None
        message: tuple[str, object] = ("returned", result)
    except (InputError, ServiceError, BundleError) as error:
        message = ("raised", error)
    except MemoryError:
        message = ("memory", "it needs more memory than the service allows for one file")
    except Exception:
        message = ("fault", traceback.format_exc())
    try:
        _send(connection, message)
    except MemoryError:
        _send(connection, ("memory", "its cells need more memory than the service allows for one file"))
    return message[0] == "returned"


def _limit_memory(headroom: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # no /proc outside Linux, and no address space limit to rely on either
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = held + headroom if hard == resource.RLIM_INFINITY else min(held + headroom, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _limit_cpu(seconds: float) -> None:
    # The limit counts over the process' whole life, so every call moves it on.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _send(connection: Connection, message: object) -> None:
    # Arrays travel beside the pickle, without a copy; small ones with it, which takes fewer turns.
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [part.nbytes for part in raw]
    together = b"".join(raw) if sum(sizes) <= _TOGETHER_BYTES else None
    connection.send((head, sizes, together))
    if together is None:
        for part in raw:
            if part.nbytes:
                connection.send_bytes(part)


def _receive(connection: Connection) -> tuple[object, ...]:
    head, sizes, together = connection.recv()
    if together is not None:
        ends = list(itertools.accumulate(sizes))
        # Copied apart: an array must begin where its type may.
        buffers = [bytearray(together[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    else:
        buffers = [bytearray(size) for size in sizes]
        for buffer in buffers:
            if buffer:
                connection.recv_bytes_into(buffer)
    return cast("tuple[object, ...]", pickle.loads(head, buffers=buffers))
