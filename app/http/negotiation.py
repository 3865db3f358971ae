"""Which formats a request has: its body by ``Content-Type``, its answer by ``Accept``."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from scpalm.app.codecs.codec import Reader
from scpalm.app.codecs.compression import check_encoding
from scpalm.app.codecs.h5ad import MEDIA_TYPE as H5AD
from scpalm.app.codecs.registry import readable_types, reader_for, writers
from scpalm.app.errors import NotAcceptableError, UnsupportedMediaTypeError

FORM = "multipart/form-data"


def negotiate(request: Request, reader: Reader | None = None) -> tuple[Reader, str]:
    """The reader of the body, and the media type of the answer.

    ``reader``: of a route that takes one kind of body, and whose answer has the same kind. Raises ServiceError (406,
    415).
    """
    if reader is not None:
        if media_type_of(request) == FORM:
            raise UnsupportedMediaTypeError("This route does not take forms. Send JSON.", field="Content-Type")
        check_encoding(content_encoding_of(request))
        return reader, reader.media_types[0]
    reader = _reader_of(request)
    check_encoding(content_encoding_of(request))
    return reader, choose_media_type(request.headers.get("accept"), offers_after(reader.media_types[0]))


def offers_after(first: str) -> list[str]:
    """Media types of answers, the given one first."""
    return [first, *(media_type for media_type in writers() if media_type != first)]


def media_type_of(request: Request) -> str:
    """Of the body, lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def content_encoding_of(request: Request) -> str:
    """As sent, lower case; "" for none."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding.removeprefix("x-")


def _reader_of(request: Request) -> Reader:
    media_type = media_type_of(request)
    # A form's file is h5ad, whatever type its part claims: browsers and curl know no type for .h5ad.
    reader = reader_for(H5AD if media_type == FORM else media_type)
    if reader is None or reader.hidden:
        sent = f"'{media_type[:100]}'" if media_type else "A body without Content-Type"
        raise UnsupportedMediaTypeError(
            f"{sent} is not supported. Send one of: {', '.join([*readable_types(), FORM])}.", field="Content-Type"
        )
    return reader


def choose_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that ``Accept`` likes best; of equals the first. Raises NotAcceptableError listing the offers."""
    if not accept or not accept.strip():
        return offers[0]
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    quality = [_quality(offer, ranges) for offer in offers]
    best = max(quality)
    if best <= 0.0:
        raise NotAcceptableError(
            f"'{accept[:200]}' names none of {', '.join(offers)}. Ask for one of them.", field="Accept"
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
    """What a header such as ``Accept-Encoding`` likes, and how much (0 to 1)."""
    return dict(_parse_range(part) for part in header.split(",") if part.strip())


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    # The most specific range that covers the offer decides, also when it says 0.
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        matches = [quality for media_type, quality in ranges if media_type == pattern]
        if matches:
            return max(matches)
    return 0.0
