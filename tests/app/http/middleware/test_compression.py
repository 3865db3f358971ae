from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import zstandard

from scpalm.app.http.middleware.compression import choose_encoding
from tests.app.fakes import Client

CELLS = 200
BODY = {
    "genes": [f"GENE{n}" for n in range(12)],
    "indptr": list(range(0, 2 * CELLS + 1, 2)),
    "indices": [0, 1] * CELLS,
    "data": [1, 2] * CELLS,
}


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("*", None),
        ("gzip", "gzip"),
        ("gzip, deflate, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("GZIP", "gzip"),
        ("gzip;q=nonsense", None),
    ],
)
def test_the_encoding_follows_accept_encoding(accept: str, encoding: str | None) -> None:
    assert choose_encoding(accept) == encoding


def test_json_responses_are_compressed_without_changes(client: Client) -> None:
    plain = client.post("/embed", json=BODY, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for encoding, unpack in (("gzip", gzip.decompress), ("zstd", lambda raw: zstandard.decompress(raw, 1 << 24))):
        headers = {"Accept-Encoding": encoding}

        async def raw(headers: dict[str, str] = headers) -> tuple[bytes, str, str]:
            async with client.http.stream("POST", "/embed", json=BODY, headers=headers) as answer:
                pieces = [piece async for piece in answer.aiter_raw()]
                return b"".join(pieces), answer.headers["content-encoding"], answer.headers["vary"]

        packed, named, vary = client.run(raw())
        assert named == encoding and "Accept-Encoding" in vary and len(packed) < len(plain.content)
        assert json.loads(unpack(packed))["values"] == plain.json()["values"]


def test_short_responses_and_other_formats_are_not_compressed(client: Client) -> None:
    assert "content-encoding" not in client.get("/health/live", headers={"Accept-Encoding": "gzip"}).headers
    binary = client.post("/embed", json=BODY, headers={"Accept": "application/x-npy", "Accept-Encoding": "gzip"})
    assert "content-encoding" not in binary.headers and np.frombuffer(binary.content[:6], np.uint8)[0] == 0x93
