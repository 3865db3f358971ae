from __future__ import annotations

import pytest

from scpalm.app.codecs.h5ad import H5adCodec
from scpalm.app.codecs.registry import all_readers, reader_for, readers, writer_for, writers
from scpalm.app.codecs.sparse_json import SparseJsonCodec


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/json", SparseJsonCodec),
        ("Application/JSON; charset=utf-8", SparseJsonCodec),
        ("application/x-hdf5", H5adCodec),
        ("application/x-h5ad", H5adCodec),
    ],
)
def test_readers_are_found_by_media_type(media_type: str, kind: type) -> None:
    assert isinstance(reader_for(media_type), kind)


@pytest.mark.parametrize("media_type", ["", "text/csv", "application/*", "application/jsonx"])
def test_unknown_media_types_have_no_reader(media_type: str) -> None:
    assert reader_for(media_type) is None


def test_every_readable_format_is_writable() -> None:
    for reader in readers():
        assert isinstance(writer_for(reader.media_types[0]), type(reader))


def test_names_and_media_types_are_unique() -> None:
    assert len({reader.name for reader in all_readers()}) == len(all_readers())
    media_types = [media_type for reader in all_readers() for media_type in reader.media_types]
    assert len(set(media_types)) == len(media_types)
    assert set(writers()) == {
        "application/json",
        "application/x-hdf5",
        "application/vnd.apache.arrow.stream",
        "application/x-npy",
    }
