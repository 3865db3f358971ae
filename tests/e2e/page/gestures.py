"""What a user does with the mouse on the map."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

Corner = tuple[float, float]


def selected(page: Page) -> int:
    text = page.get_by_test_id("selected").inner_text()
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))  # type: ignore[index]


def draw(page: Page, *corners: Corner) -> None:
    """Draw an outline on the first map; corners are shares of its width and height."""
    box = page.locator(".plane").first.bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in [*points[1:], points[0]]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


EVERYTHING: tuple[Corner, ...] = ((0.01, 0.02), (0.99, 0.02), (0.99, 0.98), (0.01, 0.98))
LEFT: tuple[Corner, ...] = ((0.01, 0.02), (0.5, 0.02), (0.5, 0.98), (0.01, 0.98))
