"""A parser process that tries what an attacker in it would try."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from scpalm.app.parsing.child import Parser, serve
from scpalm.app.parsing.messages import Message
from tests.app.fakes import make_vocabulary


class IntrudingParser(Parser):
    """The command ``try`` answers with the name of the error that an attempt raised, or "" if it succeeded."""

    def commands(self) -> dict[str, Callable[[Message], Iterator[Message]]]:
        return {"try": self.attempt, "limits": self.limits}

    def attempt(self, message: Message) -> Iterator[Message]:
        error = ""
        try:
            _ATTEMPTS[message.content["what"]](message.content["target"])
        except OSError as raised:
            error = type(raised).__name__
        yield Message("tried", {"error": error})

    def limits(self, message: Message) -> Iterator[Message]:
        names = ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_AS")
        yield Message("limits", {name: resource.getrlimit(getattr(resource, name))[0] for name in names})


def _connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


def _listen(_: object) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        pass


def _unix_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


_ATTEMPTS: dict[str, Callable[..., object]] = {
    "connect": _connect,
    "listen": _listen,
    "unix socket": _unix_socket,
    "read": lambda path: Path(path).read_bytes(),
    "list": os.listdir,
    "write": lambda path: Path(path).write_bytes(b"x"),
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, f"{path}.moved"),
    "program": lambda path: os.execv(path, [path]),
    "signal": lambda pid: os.kill(pid, signal.SIGTERM),
    "use": lambda path: Path(path).write_bytes(b"x") and Path(path).read_bytes(),
}


if __name__ == "__main__":
    serve(int(sys.argv[1]), lambda _: IntrudingParser(make_vocabulary(), None, None))
