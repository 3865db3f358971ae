from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.app.parsing.sandbox import Limits, Sandbox, SandboxError
from scpalm.model.errors import InputError

MEMORY = 512 << 20


def prepare(number: int) -> None:
    os.environ["PREPARED"] = str(number)


def prepare_badly(number: int) -> None:
    raise InputError("bad-setup", "It cannot be set up.", mend="Give up.")


def prepared_with() -> str:
    return os.environ["PREPARED"]


def double(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values * 2


def raise_input_error() -> None:
    raise InputError("negative-value", "It is negative.", mend="Do not.", cell="a", gene="B")


def raise_other() -> None:
    raise LookupError("unforeseen")


def take_memory(num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def spin() -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def die(with_signal: int) -> None:
    os.kill(os.getpid(), with_signal)


def exit_quietly() -> None:
    os._exit(3)


def environment() -> dict[str, str]:
    return dict(os.environ)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(prepare, (7,), Limits(MEMORY, 30.0))
    yield sandbox
    sandbox.close()


def test_setup_and_calls_run_in_one_other_process(sandbox: Sandbox) -> None:
    assert sandbox.call(prepared_with) == "7"
    pid = sandbox.call(os.getpid)
    assert pid == sandbox.pid != os.getpid()
    assert sandbox.call(os.getpid) == pid


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1000, 300)])
def test_arrays_come_back_whole_and_writable(sandbox: Sandbox, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    back = sandbox.call(double, values)
    np.testing.assert_array_equal(back, values * 2)
    assert back.flags.writeable


def test_errors_about_input_come_through(sandbox: Sandbox) -> None:
    with pytest.raises(InputError) as caught:
        sandbox.call(raise_input_error)
    assert (caught.value.code, caught.value.cell, caught.value.gene) == ("negative-value", "a", "B")
    assert sandbox.call(prepared_with) == "7"


def test_other_errors_are_a_fault_and_the_child_lives_on(sandbox: Sandbox) -> None:
    pid = sandbox.call(os.getpid)
    with pytest.raises(SandboxError, match="unforeseen") as caught:
        sandbox.call(raise_other)
    assert caught.value.reason == "fault"
    assert sandbox.call(os.getpid) == pid


def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert sandbox.call(take_memory, 64 << 20) == 64 << 20
    with pytest.raises(SandboxError) as caught:
        sandbox.call(take_memory, MEMORY * 2)
    assert caught.value.reason == "memory"
    assert sandbox.call(take_memory, 64 << 20) == 64 << 20


@pytest.mark.parametrize(("busy", "arguments"), [(spin, ()), (sleep, (60.0,))], ids=["spinning", "sleeping"])
def test_time_is_limited(busy: Callable[..., None], arguments: tuple[float, ...]) -> None:
    sandbox = Sandbox(prepare, (7,), Limits(MEMORY, 1.0))
    try:
        sandbox.set_up()
        pid = sandbox.pid
        with pytest.raises(SandboxError) as caught:
            sandbox.call(busy, *arguments)
        assert caught.value.reason == "timeout"
        assert sandbox.call(prepared_with) == "7"
        assert sandbox.pid != pid
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    ("deadly", "arguments", "word"),
    [(die, (signal.SIGSEGV,), "SIGSEGV"), (die, (signal.SIGKILL,), "SIGKILL"), (exit_quietly, (), "exit status 3")],
)
def test_a_crash_is_an_error_and_a_new_child_takes_over(
    sandbox: Sandbox, deadly: Callable[..., None], arguments: tuple[int, ...], word: str
) -> None:
    pid = sandbox.call(os.getpid)
    for _ in range(2):
        with pytest.raises(SandboxError, match=word) as caught:
            sandbox.call(deadly, *arguments)
        assert caught.value.reason == "killed"
        assert sandbox.call(prepared_with) == "7"
    assert sandbox.call(os.getpid) != pid


def test_a_child_that_died_between_calls_is_replaced(sandbox: Sandbox) -> None:
    pid = sandbox.call(os.getpid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert sandbox.call(prepared_with) == "7"


def test_cancel_ends_the_call_that_runs_and_nothing_else(sandbox: Sandbox) -> None:
    pid = sandbox.call(os.getpid)
    sandbox.cancel()
    assert sandbox.call(os.getpid) == pid
    errors: list[SandboxError] = []

    def call() -> None:
        try:
            sandbox.call(sleep, 60.0)
        except SandboxError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
        sandbox.cancel()
    assert [error.reason for error in errors] == ["killed"]
    assert sandbox.call(prepared_with) == "7"


def test_a_call_cancelled_at_its_last_word_leaves_nothing_dead_behind(sandbox: Sandbox) -> None:
    stop = threading.Event()

    def cancel_on_and_on() -> None:
        while not stop.is_set():
            sandbox.cancel()

    cancelled = 0
    for _ in range(15):
        stop.clear()
        thread = threading.Thread(target=cancel_on_and_on)
        thread.start()
        try:
            sandbox.call(prepared_with)
        except SandboxError:
            cancelled += 1
        stop.set()
        thread.join()
        assert sandbox.call(prepared_with) == "7", "the next call must not pay for it"
    assert cancelled


def test_the_parents_secrets_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCPALM_API_KEYS_FILE", "/secret")
    sandbox = Sandbox(prepare, (7,), Limits(MEMORY, 30.0))
    try:
        variables = sandbox.call(environment)
        assert not any(name.startswith("SCPALM_") for name in variables)
        assert variables["OMP_NUM_THREADS"] == "1"
    finally:
        sandbox.close()


def test_a_setup_that_fails_is_told() -> None:
    sandbox = Sandbox(prepare_badly, (7,), Limits(MEMORY, 30.0))
    try:
        with pytest.raises(InputError) as caught:
            sandbox.set_up()
        assert caught.value.code == "bad-setup"
    finally:
        sandbox.close()


def test_the_child_ends_with_the_sandbox() -> None:
    sandbox = Sandbox(prepare, (7,), Limits(MEMORY, 30.0))
    pid = sandbox.call(os.getpid)
    sandbox.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SandboxError):
        sandbox.call(os.getpid)
