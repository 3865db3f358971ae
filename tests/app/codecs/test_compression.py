from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from scpalm.app.codecs.compression import check_encoding, decompress
from scpalm.app.errors import TooLargeError, UnsupportedMediaTypeError
from scpalm.model.errors import UnreadableError

CONTENT = bytes(range(256)) * 4000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("in_file", [False, True])
def test_bodies_are_decompressed(tmp_path: Path, encoding: str, in_file: bool) -> None:
    packed = COMPRESS[encoding](CONTENT)
    (tmp_path / "in").write_bytes(packed)
    decompress(tmp_path / "in" if in_file else packed, encoding, tmp_path / "out", len(CONTENT))
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("encoding", COMPRESS)
def test_several_members_are_concatenated(tmp_path: Path, encoding: str) -> None:
    decompress(COMPRESS[encoding](b"one") + COMPRESS[encoding](b"two"), encoding, tmp_path / "out", None)
    assert (tmp_path / "out").read_bytes() == b"onetwo"


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_decompression_bomb_is_refused(tmp_path: Path, encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(64 << 20))
    assert len(bomb) < 1 << 17
    with pytest.raises(TooLargeError):
        decompress(bomb, encoding, tmp_path / "out", 4 << 20)
    assert (tmp_path / "out").stat().st_size <= 4 << 20


@pytest.mark.parametrize("encoding", COMPRESS)
def test_one_byte_over_the_limit_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(TooLargeError):
        decompress(COMPRESS[encoding](CONTENT), encoding, tmp_path / "out", len(CONTENT) - 1)


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("spoil", [lambda packed: b"plain text", lambda packed: packed[: len(packed) // 2]])
def test_damaged_data_is_unreadable(tmp_path: Path, encoding: str, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnreadableError) as caught:
        decompress(spoil(COMPRESS[encoding](CONTENT)), encoding, tmp_path / "out", None)
    assert (caught.value.code, caught.value.field) == ("bad-compression", "Content-Encoding")


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "GZIP"])
def test_unknown_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        decompress(b"x", encoding, tmp_path / "out", None)
    with pytest.raises(UnsupportedMediaTypeError):
        check_encoding(encoding)


def test_no_encoding_is_accepted() -> None:
    check_encoding("")
    check_encoding("gzip")
