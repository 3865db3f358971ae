"""Content negotiation: choose the reader of a body by ``Content-Type`` and the response format by ``Accept``."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from scpalm.app.codecs.codec import Reader
from scpalm.app.codecs.compression import check_encoding
from scpalm.app.codecs.h5ad import MEDIA_TYPE as H5AD
from scpalm.app.codecs.registry import readable_types, reader_for, writers
from scpalm.app.codecs.signature import FORM, UNDECLARED
from scpalm.app.errors import NotAcceptableError, UnsupportedMediaTypeError


def negotiate(request: Request, reader: Reader | None = None) -> tuple[Reader, str]:
    """The reader of the body, and the media type of the response.

    Args:
        request: the request.
        reader: fixed reader of a route that accepts one media type and responds with the same one.

    Raises:
        UnsupportedMediaTypeError, NotAcceptableError: no codec matches.
    """
    if reader is not None:
        if media_type_of(request) == FORM:
            raise UnsupportedMediaTypeError("This route does not accept forms. Send JSON.", field="Content-Type")
        check_encoding(content_encoding_of(request))
        return reader, reader.media_types[0]
    reader = _reader_of(request)
    check_encoding(content_encoding_of(request))
    return reader, choose_media_type(request.headers.get("accept"), offers_after(reader.media_types[0]))


def offers_after(first: str) -> list[str]:
    """All media types of responses, with the given one first."""
    return [first, *(media_type for media_type in writers() if media_type != first)]


def media_type_of(request: Request) -> str:
    """Media type of the body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def content_encoding_of(request: Request) -> str:
    """Content encoding of the body in lower case; "" for none."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding.removeprefix("x-")


def _reader_of(request: Request) -> Reader:
    media_type = media_type_of(request)
    # A file without a type, or in a form, is h5ad unless its first bytes say otherwise: see `read_upload`. The type
    # of a form's part is ignored, as browsers and curl do not know .h5ad.
    reader = reader_for(H5AD if media_type == FORM or media_type in UNDECLARED else media_type)
    if reader is None or reader.hidden:
        sent = f"'{media_type[:100]}'" if media_type else "A body without Content-Type"
        raise UnsupportedMediaTypeError(
            f"{sent} is not supported. Send one of: {', '.join([*readable_types(), FORM])}.", field="Content-Type"
        )
    return reader


def choose_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that ``Accept`` prefers; the first one on a tie. Raises NotAcceptableError listing the offers."""
    if not accept or not accept.strip():
        return offers[0]
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    quality = [_quality(offer, ranges) for offer in offers]
    best = max(quality)
    if best <= 0.0:
        raise NotAcceptableError(
            f"'{accept[:200]}' matches no available format. Ask for one of: {', '.join(offers)}.", field="Accept"
        )
    return offers[quality.index(best)]


def _parse_range(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, float(value)
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0


def qualities(header: str) -> dict[str, float]:
    """The values of a header such as ``Accept-Encoding``, with their quality (0 to 1)."""
    return dict(_parse_range(part) for part in header.split(",") if part.strip())


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    # The most specific matching range decides, even if its quality is 0.
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        matches = [quality for media_type, quality in ranges if media_type == pattern]
        if matches:
            return max(matches)
    return 0.0
