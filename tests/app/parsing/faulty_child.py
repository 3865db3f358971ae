"""A parser process that fails, crashes, stalls or sends malformed messages on request."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np

from scpalm.app.parsing.child import Parser, serve
from scpalm.app.parsing.messages import Message
from scpalm.model.errors import BundleError, InputError
from tests.app.fakes import make_vocabulary


class FaultyParser(Parser):
    """One command per fault."""

    def commands(self) -> dict[str, Callable[[Message], Iterator[Message]]]:
        own = (self.facts, self.double, self.wrong_cells, self.surprise, self.memory, self.spin, self.sleep, self.die)
        return {command.__name__: command for command in (*own, self.leave, self.garbage, self.half, self.pickle)}

    def facts(self, message: Message) -> Iterator[Message]:
        modules = sorted(sys.modules)
        yield Message("facts", {"pid": os.getpid(), "environment": dict(os.environ), "modules": modules})

    def double(self, message: Message) -> Iterator[Message]:
        yield Message("double", arrays={"values": message.arrays["values"] * 2})

    def wrong_cells(self, message: Message) -> Iterator[Message]:
        raise InputError("negative-value", "It is negative.", hint="Do not.", cell="a", gene="B")

    def surprise(self, message: Message) -> Iterator[Message]:
        raise LookupError("unforeseen")

    def memory(self, message: Message) -> Iterator[Message]:
        yield Message("memory_taken", {"bytes": len(bytearray(message.content["bytes"]))})

    def spin(self, message: Message) -> Iterator[Message]:
        while True:
            pass

    def sleep(self, message: Message) -> Iterator[Message]:
        time.sleep(60)
        yield Message("slept")

    def die(self, message: Message) -> Iterator[Message]:
        os.kill(os.getpid(), message.content["signal"])
        yield Message("alive")

    def leave(self, message: Message) -> Iterator[Message]:
        os._exit(3)

    def garbage(self, message: Message) -> Iterator[Message]:
        Connection(int(sys.argv[1])).send_bytes(bytes.fromhex(message.content["frame"]))
        yield Message("never")

    def half(self, message: Message) -> Iterator[Message]:
        os.write(int(sys.argv[1]), (1000).to_bytes(4, "big") + b"only the beginning")
        time.sleep(60)
        yield Message("never")

    def pickle(self, message: Message) -> Iterator[Message]:
        Connection(int(sys.argv[1])).send(_Exploit(message.content["file"]))
        yield Message("never")


class _Exploit:
    """Writes a file when it is unpickled."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self._file, "w")


def open_faulty(setup: Message) -> Parser:
    if setup.content["genes"] == "broken":
        raise BundleError("It cannot be set up.")
    return FaultyParser(make_vocabulary(), None, None)


if __name__ == "__main__":
    np.zeros(1)
    serve(int(sys.argv[1]), open_faulty)
