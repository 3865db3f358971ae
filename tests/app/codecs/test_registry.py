from __future__ import annotations

import pytest

from scpalm.app.codecs.registry import CODECS, H5adCodec, SparseJsonCodec, codec_for, writer_for


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/json", SparseJsonCodec),
        ("Application/JSON; charset=utf-8", SparseJsonCodec),
        ("application/x-hdf5", H5adCodec),
        ("application/x-h5ad", H5adCodec),
    ],
)
def test_found_by_media_type(media_type: str, kind: type) -> None:
    assert isinstance(codec_for(media_type), kind)


@pytest.mark.parametrize("media_type", ["", "text/csv", "application/*", "application/jsonx"])
def test_unknown_media_types_have_no_codec(media_type: str) -> None:
    assert codec_for(media_type) is None


def test_every_codec_that_reads_reads_what_it_writes() -> None:
    for codec in (codec for codec in CODECS if codec.media_types):
        assert codec_for(codec.media_type) is codec
        assert codec.media_types[0] == codec.media_type


def test_every_codec_is_found_by_what_it_writes() -> None:
    for codec in CODECS:
        assert writer_for(codec.media_type) is codec
    assert len({codec.name for codec in CODECS}) == len(CODECS)
