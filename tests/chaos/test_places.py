"""Fault injection in one process: each place, each fault; the client gets an error, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.places import PLACES, Place
from tests.chaos.site import CannotMountError, site


@pytest.mark.parametrize("case", PLACES.values(), ids=lambda case: case.__name__)
def test_the_client_gets_an_error_and_nothing_is_left(case: Place, tmp_path: Path) -> None:
    try:
        with site(tmp_path / "site") as made:
            seen = case(made)
    except CannotMountError as error:
        pytest.skip(f"a small disk cannot be mounted, which needs root on Linux: {error}")
    assert seen.client and seen.left == "nothing"
