from __future__ import annotations

from contextlib import ExitStack

import pytest

from scpalm.app.errors import QueueFullError
from scpalm.app.serving.upload_slots import UploadSlots, client_of
from scpalm.app.settings import Settings


def test_one_client_cannot_take_the_slots_of_the_others() -> None:
    slots = UploadSlots(4, 2)
    with ExitStack() as greedy:
        for _ in range(2):
            greedy.enter_context(slots.hold("greedy"))
        with pytest.raises(QueueFullError, match="SCPALM_MAX_UPLOADS_PER_CLIENT"):
            greedy.enter_context(slots.hold("greedy"))
        with slots.hold("a"), slots.hold("b"), pytest.raises(QueueFullError, match=r"SCPALM_MAX_UPLOADS\)"):
            greedy.enter_context(slots.hold("c"))
    with slots.hold("greedy"), slots.hold("greedy"):
        pass  # slots come back


@pytest.mark.parametrize(
    ("key", "address", "client"),
    [
        ("lab", "10.0.0.1", "key lab"),
        (None, "10.0.0.1", "10.0.0.1"),
        (None, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (None, "", ""),
    ],
)
def test_a_share_belongs_to_a_key_or_an_address(key: str | None, address: str, client: str) -> None:
    assert client_of(key, address) == client


def test_the_default_share_leaves_room_for_others() -> None:
    assert Settings().upload_share == 224
    assert Settings(max_uploads=1).upload_share == 1
    assert Settings(max_uploads_per_client=256).upload_share == 256
