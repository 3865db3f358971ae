"""Parser processes that are ended from outside: the upload is not at fault, and is read once more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from scpalm.app.errors import DrainingError, InterruptedParserError
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserProcess, ProcessError
from scpalm.app.parsing.refusals import refusal
from scpalm.model.errors import UnreadableError
from tests.app.pools import JSON, as_json, assert_same, parse_all, upload_of, with_pool
from tests.model.small_cells import small_counts

UPLOAD = upload_of(as_json(small_counts()), JSON)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parser_that_is_killed_once_makes_no_difference(genes: Path, number: int) -> None:
    async def use(pool: ParserPool) -> None:
        expected = await parse_all(pool, UPLOAD)
        for command in (parse_all(pool, UPLOAD), pool.head(UPLOAD)):
            (pid,) = pool.pids
            os.kill(pid, signal.SIGSTOP)  # the command reaches a process that cannot answer
            running = asyncio.create_task(command)
            await asyncio.sleep(0.05)
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
            await running
        assert_same(await parse_all(pool, UPLOAD), expected)

    with_pool(genes, use)


def test_a_parser_that_is_killed_twice_is_a_503(genes: Path) -> None:
    async def use(pool: ParserPool) -> None:
        running = asyncio.create_task(parse_all(pool, UPLOAD))
        kill(pool.pids[0], signal.SIGSTOP)
        while not running.done():  # a new process needs much longer to start
            kill(pool.pids[0])
            await asyncio.sleep(0.02)
        with pytest.raises(InterruptedParserError, match=r"SIGKILL.*not at fault. Send it again") as caught:
            await running
        assert caught.value.status == 503 and caught.value.retry_after
        assert len((await parse_all(pool, UPLOAD)).rows), "the pool works again"

    with_pool(genes, use)


def test_a_pool_that_is_closed_refuses_uploads_with_503(genes: Path) -> None:
    async def use(pool: ParserPool) -> None:
        os.kill(pool.pids[0], signal.SIGSTOP)
        running = asyncio.create_task(parse_all(pool, UPLOAD))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(pool.close)
        with pytest.raises(DrainingError):
            await running

    with_pool(genes, use)


def test_a_client_that_leaves_before_its_command_begins_frees_the_process(genes: Path) -> None:
    async def use(pool: ParserPool) -> None:
        begun, may_go_on = threading.Event(), threading.Event()

        def late(process: ParserProcess, scratch: Path) -> None:
            begun.set()
            may_go_on.wait(20)
            kill(process.pid, signal.SIGSTOP)  # without a signal it would not answer for the longest time
            process.call(Message("parse"))

        running = asyncio.create_task(pool._run(0, late))
        await asyncio.to_thread(begun.wait, 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        may_go_on.set()
        async with asyncio.timeout(30):
            assert len((await parse_all(pool, UPLOAD)).rows)

    with_pool(genes, use)


def test_a_traceback_of_a_parser_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1\n2026 ERROR a forged line\n'
    with caplog.at_level(logging.WARNING):
        assert isinstance(refusal(ProcessError("fault", text)), UnreadableError)
    (record,) = caplog.records
    assert "forged" in record.getMessage() and "\n" not in record.getMessage()
