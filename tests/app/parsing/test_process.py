from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scpalm
from scpalm.app.parsing.isolation.isolate import Folders
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.process import ParserLimits, ParserProcess, ProcessError
from scpalm.model.errors import BundleError, InputError

MEMORY = 512 << 20
FAULTY = "tests.app.parsing.faulty_child"


def start(seconds: float = 30.0, genes: str = "genes.parquet") -> ParserProcess:
    return ParserProcess(Path(genes), ParserLimits(MEMORY, seconds), Folders((), ()), FAULTY)


def facts(process: ParserProcess) -> dict[str, Any]:
    return dict(process.call(Message("facts")).content)


@pytest.fixture
def process() -> Iterator[ParserProcess]:
    process = start()
    yield process
    process.close()


def test_commands_run_in_a_single_child_process(process: ParserProcess) -> None:
    pid = facts(process)["pid"]
    assert pid == process.pid != os.getpid()
    assert facts(process)["pid"] == pid


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1000, 300)])
def test_arrays_arrive_unchanged(process: ParserProcess, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    back = process.call(Message("double", arrays={"values": values})).arrays["values"]
    np.testing.assert_array_equal(back, values * 2)
    assert back.dtype == np.float32


def test_errors_about_input_are_passed_on(process: ParserProcess) -> None:
    with pytest.raises(InputError) as caught:
        process.call(Message("wrong_cells"))
    assert (caught.value.code, caught.value.cell, caught.value.gene) == ("negative-value", "a", "B")
    assert facts(process)


def test_other_errors_are_faults_that_the_child_survives(process: ParserProcess) -> None:
    pid = facts(process)["pid"]
    with pytest.raises(ProcessError, match="unforeseen") as caught:
        process.call(Message("surprise"))
    assert caught.value.reason == "fault"
    assert facts(process)["pid"] == pid


def test_memory_is_limited(process: ParserProcess) -> None:
    def take(num_bytes: int) -> int:
        taken: int = process.call(Message("memory", {"bytes": num_bytes})).content["bytes"]
        return taken

    assert take(64 << 20) == 64 << 20
    with pytest.raises(ProcessError) as caught:
        take(MEMORY * 2)
    assert caught.value.reason == "memory"
    assert take(64 << 20) == 64 << 20


@pytest.mark.parametrize("busy", ["spin", "sleep", "half"])
def test_time_is_limited(busy: str) -> None:
    process = start(seconds=1.0)
    try:
        process.set_up()
        pid = process.pid
        with pytest.raises(ProcessError) as caught:
            process.call(Message(busy))
        assert caught.value.reason == "timeout"
        assert facts(process)["pid"] != pid
    finally:
        process.close()


@pytest.mark.parametrize(
    ("command", "word", "reason"),
    [
        (Message("die", {"signal": signal.SIGSEGV}), "SIGSEGV", "killed"),
        (Message("die", {"signal": signal.SIGKILL}), "SIGKILL", "ended"),
        (Message("die", {"signal": signal.SIGTERM}), "SIGTERM", "ended"),
        (Message("leave"), "exit status 3", "killed"),
    ],
    ids=["SIGSEGV", "SIGKILL", "SIGTERM", "exit"],
)
def test_a_crash_is_an_error_and_the_child_is_replaced(
    process: ParserProcess, command: Message, word: str, reason: str
) -> None:
    pid = facts(process)["pid"]
    with pytest.raises(ProcessError, match=word) as caught:
        process.call(command)
    assert caught.value.reason == reason
    assert facts(process)["pid"] != pid


def test_a_child_that_died_between_commands_is_replaced(process: ParserProcess) -> None:
    pid = facts(process)["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert facts(process)["pid"] != pid


def test_cancel_aborts_only_the_running_command(process: ParserProcess) -> None:
    pid = facts(process)["pid"]
    process.cancel()
    assert facts(process)["pid"] == pid
    errors: list[ProcessError] = []

    def call() -> None:
        try:
            process.call(Message("sleep"))
        except ProcessError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
        process.cancel()
    assert [error.reason for error in errors] == ["killed"]
    assert facts(process)


def test_a_command_cancelled_at_its_last_message_leaves_no_dead_child(process: ParserProcess) -> None:
    stop = threading.Event()

    def keep_cancelling() -> None:
        while not stop.is_set():
            process.cancel()

    cancelled = 0
    for _ in range(6):
        stop.clear()
        thread = threading.Thread(target=keep_cancelling)
        thread.start()
        try:
            facts(process)
        except ProcessError:
            cancelled += 1
        stop.set()
        thread.join()
        assert facts(process), "the next command must not be affected"
    assert cancelled


def test_the_child_does_not_inherit_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCPALM_API_KEYS_FILE", "/secret")
    process = start()
    try:
        variables = facts(process)["environment"]
        assert not any(name.startswith("SCPALM_") for name in variables)
        assert variables["OMP_NUM_THREADS"] == "1"
    finally:
        process.close()


def test_a_failed_setup_is_raised() -> None:
    process = start(genes="broken")
    try:
        with pytest.raises(BundleError, match="cannot be set up"):
            process.set_up()
    finally:
        process.close()


def test_the_child_exits_with_its_parent() -> None:
    process = start()
    pid = facts(process)["pid"]
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ProcessError):
        facts(process)


def test_a_pickle_from_the_child_runs_no_code(process: ParserProcess, tmp_path: Path) -> None:
    """A compromised HDF5 reader can send anything, so the parent must never unpickle messages."""
    with pytest.raises(ProcessError) as caught:
        process.call(Message("pickle", {"file": str(tmp_path / "owned")}))
    assert caught.value.reason == "message"
    assert not (tmp_path / "owned").exists()
    assert facts(process)


HEADERS = {
    "no header": b"",
    "not JSON": b"{",
    "not an object": b"[1]",
    "objects for numbers": b'{"kind": "x", "content": {}, "inline": true, "arrays": [["a", "|O", [1]]]}',
    "a type that NumPy cannot parse": b'{"kind": "x", "content": {}, "inline": true, "arrays": [["a", "(,,f4", [1]]]}',
    "negative shape": b'{"kind": "x", "content": {}, "inline": true, "arrays": [["a", "<f4", [-1]]]}',
    "more than there is": b'{"kind": "x", "content": {}, "inline": true, "arrays": [["a", "<f4", [1000]]]}',
    "terabytes": b'{"kind": "x", "content": {}, "inline": false, "arrays": [["a", "<f8", [200000000000]]]}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_malformed_messages_are_refused(process: ParserProcess, header: bytes) -> None:
    frame = len(header).to_bytes(8, "little") + header
    with pytest.raises(ProcessError) as caught:
        process.call(Message("garbage", {"frame": frame.hex()}))
    assert caught.value.reason == "message"
    assert facts(process)


def test_the_current_folder_provides_no_code(tmp_path: Path) -> None:
    """A folder `app/` in the current directory must not be imported by parser processes."""
    for name in ("app", "model", "numpy", "orjson", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\nraise SystemExit(7)\n")
    script = (
        "from pathlib import Path; from scpalm.app.parsing.process import *; "
        "limits, folders = ParserLimits(1 << 29, 30.0), Folders((), ()); "
        f"process = ParserProcess(Path({str(tmp_path / 'genes.parquet')!r}), limits, folders)\n"
        "try: process.set_up()\n"
        "except Exception as error: print(type(error).__name__)\n"
        "process.close()"
    )
    root = Path(scpalm.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    # The child reached the point of reading the genes, which are missing.
    assert done.stdout.strip() == "BundleError", done.stderr
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("action", ["cancel", "close"])
def test_a_process_that_starts_while_its_command_ends_is_ended_too(
    process: ParserProcess, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """A dead child is being replaced when the client leaves, or the service stops."""
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    started: list[subprocess.Popen[bytes]] = []
    real_popen = subprocess.Popen

    def start_and_act(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        child: subprocess.Popen[bytes] = real_popen(*args, **kwargs)
        if not started:
            getattr(process, action)()
        started.append(child)
        return child

    monkeypatch.setattr("scpalm.app.parsing.process.subprocess.Popen", start_and_act)
    with pytest.raises(ProcessError) as caught:
        process.call(Message("sleep"))
    assert caught.value.reason == ("killed" if action == "cancel" else "closed")
    assert started[0].poll() is not None, "the new process must not go on"
    if action == "cancel":
        assert facts(process), "the next command must not be affected"
    else:
        with pytest.raises(ProcessError):
            facts(process)
        assert all(child.poll() is not None for child in started)
