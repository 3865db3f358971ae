"""Messages are data, with a version: any bytes are read, or refused with WireError."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

from scpalm.app.errors import InferenceError
from scpalm.app.queue.transport import WorkResult
from scpalm.app.queue.wire import VERSION, WireError, WorkReader, pack_outcome, pack_work, read_outcome
from tests.app.fakes import INFO, make_work
from tests.app.queue.conftest import bundle_named

WORK = pack_work(make_work(3))
OUTCOME = pack_outcome(WorkResult({"embed": np.ones((3, 2), np.float32)}))


def read_work(content: bytes) -> object:
    return WorkReader(bundle_named("wire"), INFO).read(content)


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "worker": (read_work, WORK),
    "service": (read_outcome, OUTCOME),
}


def changed(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object], folder: Path) -> bytes:
    """The message with another header or other arrays."""
    (folder / "message").write_bytes(content)
    with safe_open(folder / "message", "numpy") as file:
        header = json.loads(file.metadata()["scpalm"])
    arrays = load(content)
    change(header, arrays)
    return save(arrays, {"scpalm": json.dumps(header)})


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a message was unpickled",)


GARBAGE = {
    "empty": b"",
    "short": b"\x01",
    "text": b"hello, this is no message at all",
    "huge header": (1 << 62).to_bytes(8, "little") + b"{}",
    "json": b'{"version": 2}',
    "list as header": (2).to_bytes(8, "little") + b"[]",
    "deep header": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "pickle": pickle.dumps(Exploit()),
    "no header": save({"x": np.zeros(3)}),
    "other header": save({"x": np.zeros(3)}, {"scpalm": "[1, 2]"}),
    "header of no JSON": save({"x": np.zeros(3)}, {"scpalm": "{"}),
    "header without a version": save({}, {"scpalm": "{}"}),
    "header with a version alone": save({}, {"scpalm": json.dumps({"version": VERSION})}),
}


@pytest.mark.parametrize("side", READERS)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(side: str, garbage: bytes) -> None:
    with pytest.raises(WireError):
        READERS[side][0](garbage)


@pytest.mark.parametrize("side", READERS)
@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1, "2", None])
def test_other_versions_are_refused_with_the_way_out(side: str, version: object, tmp_path: Path) -> None:
    read, content = READERS[side]
    other = changed(content, lambda header, arrays: header.update(version=version), tmp_path)
    with pytest.raises(WireError, match="Update both sides"):
        read(other)


@pytest.mark.parametrize("side", READERS)
def test_members_and_arrays_of_a_later_release_are_left_out(side: str, tmp_path: Path) -> None:
    """Additions need no new version."""

    def add(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        header["later"] = {"a": 1}
        if side == "worker":
            arrays["later"] = np.zeros(3, np.int32)

    READERS[side][0](changed(READERS[side][1], add, tmp_path))


@pytest.mark.parametrize("side", READERS)
def test_damaged_messages_are_read_or_refused(side: str) -> None:
    read, content = READERS[side]
    chance = random.Random(0)
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        cut = bytes(damaged[: chance.randint(0, len(damaged))]) if chance.random() < 0.2 else bytes(damaged)
        try:
            read(cut)
        except WireError:
            continue


FAULTS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "a gene below zero": lambda header, arrays: arrays.update(gene_index=np.full_like(arrays["value"], -1, np.int32)),
    "a gene set below zero": lambda header, arrays: arrays.update(gene_set_of_row=np.full(3, -1, np.int32)),
    "a length below zero": lambda header, arrays: arrays.update(
        lengths=np.array([-1, 1, len(arrays["value"])], np.int32)
    ),
    "an unknown lane": lambda header, arrays: header.update(lane="express"),
    "a row below zero": lambda header, arrays: header.update(first=-1),
    "an unknown task": lambda header, arrays: header.update(tasks=[{"task": "open", "settings": {}}]),
    "tasks that are text": lambda header, arrays: header.update(tasks="embed"),
    "a number that is text": lambda header, arrays: header.update(num_genes="many"),
    "no genes": lambda header, arrays: header.update(num_genes=0),
    "too many genes": lambda header, arrays: header.update(num_genes=1 << 40),
    "a missing array": lambda header, arrays: arrays.pop("value"),
    "an array of another shape": lambda header, arrays: arrays.update(lengths=np.ones((3, 3), np.int32)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_work_that_contradicts_itself_is_refused(
    fault: Callable[[dict[str, Any], dict[str, Any]], object], tmp_path: Path
) -> None:
    with pytest.raises(WireError):
        read_work(changed(WORK, fault, tmp_path))


@pytest.mark.parametrize("error", [["one"], 7, ["code", "detail", None, "soon"]])
def test_errors_of_another_form_are_refused(error: object, tmp_path: Path) -> None:
    message = pack_outcome(WorkResult(None, InferenceError("It failed.")))
    with pytest.raises(WireError):
        read_outcome(changed(message, lambda header, arrays: header.update(error=error), tmp_path))
