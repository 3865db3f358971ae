from __future__ import annotations

import pytest

from scpalm.app.errors import NotAcceptableError
from scpalm.app.http.negotiation import choose_media_type

JSON, H5AD = "application/json", "application/x-hdf5"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (H5AD, H5AD),
        ("application/*", JSON),
        (f"{JSON};q=0.5, {H5AD}", H5AD),
        (f"{JSON};q=0, */*;q=0.1", H5AD),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (" Application/X-HDF5 ; Q=1.0", H5AD),
    ],
)
def test_the_preferred_offer_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose_media_type(accept, (JSON, H5AD)) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "application/json;q=much", ",;,"])
def test_errors_list_the_offers_if_none_is_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json"):
        choose_media_type(accept, (JSON,))
