from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from scpalm.app.parsing.process import ProcessError
from tests.app.parsing.test_process import facts, start


class _SlowToClose:
    """A connection that notes whether two threads close it at the same time."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._closing, self.twice = connection, False, False

    def close(self) -> None:
        self.twice |= self._closing
        self._closing = True
        time.sleep(0.1)
        self._connection.close()
        self._closing = False


def test_the_connection_is_never_closed_by_two_threads_at_once() -> None:
    """A command that ends while the service stops: both close it, and its descriptor may be in use again by then."""
    process = start()
    facts(process)
    slow = _SlowToClose(process._connection)
    process._connection = slow  # type: ignore[assignment]
    process._process.kill()
    threads = [threading.Thread(target=ends) for ends in (process._replace, process.close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not slow.twice
    with pytest.raises(ProcessError, match="shutting down"):
        facts(process)
