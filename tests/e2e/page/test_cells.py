"""The map of the cells: colours, genes, selections, codes, drugs and the link to a view."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.e2e.conftest import Server
from tests.e2e.page.conftest import HOSTILE, drawn_pixels, open_file
from tests.e2e.page.gestures import EVERYTHING, LEFT, draw, selected

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


def test_the_numbers_are_those_of_the_service(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    with real_file.open("rb") as file:
        answer = httpx.post(
            f"{server.url}/annotate", files={"file": file}, headers={"Accept": "application/json"}, timeout=60
        ).json()
    labels = sorted(answer["label"] if "label" in answer else [row[0] for row in answer["values"]])
    shown = [row.split("\t") for row in page.inner_text(".panel table >> nth=0").splitlines() if "%" in row]
    assert {name: int(number) for name, number, _ in shown} == {name: labels.count(name) for name in set(labels)}


def test_a_gene_is_shown_measured_and_imputed(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    page.get_by_label("Gene", exact=True).fill("lyz")
    page.keyboard.press("Enter")
    page.get_by_text("LYZ, measured").wait_for()
    page.get_by_text("LYZ, imputed").wait_for()
    assert drawn_pixels(page, 0) > 200 and drawn_pixels(page, 1) > 200
    page.get_by_label("Gene", exact=True).fill("NOT_A_GENE")
    page.keyboard.press("Enter")
    page.locator("[role=alert]", has_text="does not know the gene 'NOT_A_GENE'").wait_for()


def test_cells_are_selected_with_a_lasso(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    draw(page, *EVERYTHING)
    assert selected(page) == 100
    page.get_by_role("button", name="Subtract").click()
    draw(page, *LEFT)
    right = selected(page)
    assert 0 < right < 100
    page.get_by_role("button", name="Add", exact=True).click()
    draw(page, *LEFT)
    assert selected(page) == 100
    page.get_by_role("button", name="invert").click()
    assert selected(page) == 0
    page.get_by_role("button", name="New").click()
    draw(page, *LEFT)
    assert selected(page) == 100 - right
    page.locator("table", has_text="Genes that are higher here").locator("tbody tr").first.wait_for()
    page.locator("table", has_text="Codes that are more frequent").locator("tbody tr").first.wait_for()
    page.get_by_role("button", name="clear").click()
    assert selected(page) == 0


def test_names_of_a_file_are_never_markup(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    page.get_by_label("Colour by").select_option("obs:group")
    page.locator(".legend h2", has_text="group").wait_for()
    assert sorted(page.locator(".entry .name").all_inner_texts()) == sorted([HOSTILE, "plain"])
    page.get_by_role("tab", name="Save").click()
    with page.expect_download() as started:
        page.get_by_role("button", name="SVG").click()
    assert "<script" not in Path(started.value.path()).read_text()
    page.get_by_role("tab", name="Drugs").click()
    page.get_by_label("Group by").select_option("obs:group")
    page.locator(".heat th[scope=col]", has_text="<script>").wait_for()
    page.get_by_label("Colour by").select_option("obs:depth")
    page.locator(".legend .scale").wait_for()
    page.locator(".toolbar select").select_option("X_umap")
    page.wait_for_function("document.querySelector('.toolbar select').value === 'X_umap'")
    assert drawn_pixels(page) > 300


def test_codes_and_drugs(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    page.get_by_role("tab", name="Codes").click()
    page.locator(".code-list button:enabled").first.click()
    page.locator(".legend h2", has_text=re.compile(r"Code \d+")).wait_for()
    page.get_by_role("tab", name="Drugs").click()
    page.locator(".heat tbody tr").first.wait_for()
    page.get_by_label("Search drugs").fill("cisplatin")
    assert page.locator(".heat tbody tr").count() == 1
    assert "90 % interval" in (page.locator(".heat td").first.get_attribute("title") or "")


def test_the_link_restores_the_view_and_the_list_has_the_job(
    page: Page, server: Server, real_file: Path, context: BrowserContext
) -> None:
    open_file(page, server, real_file)
    page.get_by_label("Colour by").select_option("obs:depth")
    page.locator(".legend h2", has_text="depth").wait_for()
    draw(page, *LEFT)
    number = selected(page)
    assert number > 0
    page.reload()
    page.locator(".legend h2", has_text="depth").wait_for()
    page.wait_for_function("document.querySelector('[data-testid=selected]').innerText !== '0 selected'")
    assert selected(page) == number
    page.goto("about:blank")
    page.goto(server.url)
    page.get_by_role("button", name="Jobs").click()
    page.locator(".jobs li", has_text=real_file.name).first.get_by_role("button", name="Open").click()
    page.wait_for_selector(".plane canvas")
    assert selected(page) == 0
