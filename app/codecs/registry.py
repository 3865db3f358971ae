"""Codecs: bytes <-> cells, one format a file, found by media type. A codec knows neither the model nor HTTP."""

from __future__ import annotations

from scpalm.app.codecs.arrow import ArrowCodec
from scpalm.app.codecs.codec import CHUNK_CELLS, Answer, Codec, DecodeOptions, Part
from scpalm.app.codecs.h5ad import H5adCodec
from scpalm.app.codecs.npy import NpyCodec
from scpalm.app.codecs.sparse_json import SparseJsonCodec
from scpalm.app.v2.codec import InferenceCodec

__all__ = [
    "CHUNK_CELLS",
    "CODECS",
    "READABLE",
    "Answer",
    "ArrowCodec",
    "Codec",
    "DecodeOptions",
    "H5adCodec",
    "NpyCodec",
    "Part",
    "SparseJsonCodec",
    "codec_for",
    "writer_for",
]

# The first is the default. A new format is one class more here.
CODECS: tuple[Codec, ...] = (SparseJsonCodec(), H5adCodec(), ArrowCodec(), NpyCodec())
READABLE = tuple(codec.media_type for codec in CODECS if codec.media_types)
_WRITERS = {codec.media_type: codec for codec in CODECS}
# Bodies of this one come in by a route of their own, which also writes their answers.
_BY_MEDIA_TYPE = {media_type: codec for codec in (*CODECS, InferenceCodec()) for media_type in codec.media_types}


def writer_for(media_type: str) -> Codec | None:
    """The codec that writes exactly this media type, or None."""
    return _WRITERS.get(media_type)


def codec_for(media_type: str) -> Codec | None:
    """The codec that reads a media type (parameters are ignored), or None where none does."""
    return _BY_MEDIA_TYPE.get(media_type.partition(";")[0].strip().lower())
