"""Which format an answer takes: the ``Accept`` header against what can be written."""

from __future__ import annotations

from collections.abc import Sequence

from scpalm.app.errors import NotAcceptableError


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
