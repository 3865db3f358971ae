from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest

from scpalm.app.codecs.inference_message import read_message
from scpalm.model.errors import InputError, UnreadableError


def tensor(name: str, kind: str, data: object, shape: list[int], **parameters: object) -> dict[str, object]:
    out: dict[str, object] = {"name": name, "datatype": kind, "shape": shape}
    return out | ({"parameters": parameters} if parameters else {}) | ({} if data is None else {"data": data})


def strings(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def test_json_and_binary_tensors_are_equivalent() -> None:
    numbers = np.array([1.5, -2, 3], np.float32)
    in_json = {"inputs": [tensor("a", "FP32", numbers.tolist(), [3]), tensor("b", "BYTES", ["x", "µ"], [2])]}
    blobs = [numbers.tobytes(), strings("x", "µ")]
    described = [("a", "FP32", [3], blobs[0]), ("b", "BYTES", [2], blobs[1])]
    head = {"inputs": [tensor(n, k, None, s, binary_data_size=len(blob)) for n, k, s, blob in described]}
    text = orjson.dumps(head)
    one = read_message(orjson.dumps(in_json), None)
    two = read_message(text + b"".join(blobs), len(text))
    for name in ("a", "b"):
        np.testing.assert_array_equal(one.tensors[name], two.tensors[name])
    assert one.tensors["b"] == ["x", "µ"] and two.head == head


def test_rows_may_be_nested() -> None:
    body = orjson.dumps({"inputs": [tensor("a", "INT32", [[1, 2], [3, 4]], [2, 2])]})
    assert read_message(body, None).tensors["a"].tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ([], "missing-field"),
        ("x", "missing-field"),
        ([{"datatype": "FP32"}], "missing-field"),
        ([tensor("a", "FP99", [1], [1])], "wrong-type"),
        ([tensor("a", "FP32", [1], [-1])], "wrong-shape"),
        ([tensor("a", "FP32", [1], [1] * 9)], "wrong-shape"),
        ([tensor("a", "FP32", [1], [2])], "length-mismatch"),
        ([tensor("a", "FP32", None, [1 << 39])], "length-mismatch"),
        ([tensor("a", "FP32", ["x"], [1])], "wrong-type"),
        ([tensor("a", "BYTES", [1], [1])], "wrong-type"),
        ([tensor("a", "UINT8", [300], [1])], "out-of-range"),
        ([tensor("a", "FP32", [1], [1]), tensor("a", "FP32", [1], [1])], "twice"),
        ([tensor("a", "FP32", None, [1], binary_data_size=-1)], "wrong-type"),
        ([tensor("a", "FP32", None, [1], binary_data_size=3)], "length-mismatch"),
        ([tensor("a", "BYTES", None, [2], binary_data_size=4)], "length-mismatch"),
    ],
)
def test_tensors_that_do_not_match_their_declaration_are_refused(inputs: object, code: str) -> None:
    head = orjson.dumps({"inputs": inputs})
    with pytest.raises(InputError) as caught:
        read_message(head + bytes(4), len(head))
    assert caught.value.code == code


@pytest.mark.parametrize(("body", "length"), [(b"{", None), (b"{}", 5), (b"\xff", 1)])
def test_unreadable_messages_are_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(UnreadableError):
        read_message(body, length)


def test_truncated_binary_data_is_refused() -> None:
    head = orjson.dumps({"inputs": [tensor("a", "FP32", None, [2], binary_data_size=8)]})
    with pytest.raises(UnreadableError, match="4 are left"):
        read_message(head + bytes(4), len(head))
