"""Codecs: bytes <-> cells, one format a file, found by media type. A codec knows neither the model nor HTTP."""

from __future__ import annotations

from app.codecs.codec import CHUNK_CELLS, Answer, Codec, DecodeOptions, Part
from app.codecs.h5ad import H5adCodec
from app.codecs.sparse_json import SparseJsonCodec

__all__ = [
    "CHUNK_CELLS",
    "CODECS",
    "Answer",
    "Codec",
    "DecodeOptions",
    "H5adCodec",
    "Part",
    "SparseJsonCodec",
    "codec_for",
]

# The first is the default. A new format is one class more here.
CODECS: tuple[Codec, ...] = (SparseJsonCodec(), H5adCodec())
_BY_MEDIA_TYPE = {media_type: codec for codec in CODECS for media_type in codec.media_types}


def codec_for(media_type: str) -> Codec | None:
    """The codec of a media type (parameters are ignored), or None where none reads it."""
    return _BY_MEDIA_TYPE.get(media_type.partition(";")[0].strip().lower())
