"""The page without a mouse, without WebGL, and checked by axe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Server
from tests.e2e.page.conftest import drawn_pixels, open_file
from tests.e2e.page.gestures import LEFT, draw, selected

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_keyboard_is_enough(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    before = drawn_pixels(page)
    page.locator(".plane").first.focus()
    for _ in range(6):
        page.keyboard.press("+")
    assert drawn_pixels(page) != before
    page.keyboard.press("0")
    page.get_by_role("tab", name="Selection").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Codes").get_attribute("aria-selected") == "true"
    page.get_by_role("button", name=re.compile("^Select the ")).first.focus()
    page.keyboard.press("Enter")
    assert selected(page) > 0


def test_without_gl_a_canvas_is_drawn(page: Page, server: Server, real_file: Path) -> None:
    page.goto(f"{server.url}/?renderer=canvas")
    page.set_input_files("input[type=file]", real_file)
    page.wait_for_selector(".plane canvas")
    assert page.locator(".plane canvas").get_attribute("data-renderer") == "canvas"
    assert drawn_pixels(page) > 300


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, server: Server, real_file: Path, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def check(what: str) -> None:
        found = axe.run(page).response["violations"]
        serious = [
            f"{what}: {one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0].get('failureSummary')}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []

    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.goto(server.url)
    page.wait_for_selector(".promises")
    check("start")
    open_file(page, server, real_file)
    draw(page, *LEFT)
    check("cells")
    for tab in ("Codes", "Drugs", "Save"):
        page.get_by_role("tab", name=tab).click()
        if tab == "Drugs":
            page.locator(".heat tbody tr").first.wait_for()
        check(tab)
    page.get_by_role("button", name="Code", exact=True).click()
    check("code")
