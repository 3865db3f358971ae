"""The page at /, driven in a real browser against a real server."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import httpx
import numpy as np
import pytest
from scipy import sparse

from scpalm.app.auth.keys import new_key
from tests.e2e.conftest import BUNDLE, Server
from tests.e2e.page.conftest import FORMULA, HOSTILE, drawn_pixels, open_file

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

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


def test_the_start_says_where_a_file_goes(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.wait_for_function("document.querySelector('.promises')?.innerText.includes('hours after')")
    text = page.inner_text(".promises")
    assert "this computer" in text and "24 hours" in text and "100,000 cells" in text


def test_a_dropped_file_becomes_a_coloured_map(page: Page, server: Server, real_file: Path) -> None:
    page.goto(server.url)
    content = base64.b64encode(real_file.read_bytes()).decode()
    page.evaluate(
        """([content, name]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
            data.items.add(new File([bytes], name));
            const target = document.querySelector(".drop");
            target.dispatchEvent(new DragEvent("dragover", { dataTransfer: data, bubbles: true, cancelable: true }));
            target.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [content, real_file.name],
    )
    page.wait_for_selector(".progress li.now")
    page.wait_for_selector(".plane canvas")
    assert page.locator(".plane canvas").get_attribute("data-renderer") == "webgl2"
    assert drawn_pixels(page) > 300
    assert page.inner_text(".crumb").split() == [real_file.name, "100", "cells"]
    page.get_by_text("What was found in the file").click()
    verdict = page.inner_text(".verdict")
    assert "raw counts in X" in verdict and "genes are known" in verdict


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
    # The second gene is stored, and comes within 400 ms as the first one's measured values did.
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


def test_results_and_selections_can_be_saved(page: Page, server: Server, real_file: Path, tmp_path: Path) -> None:
    open_file(page, server, real_file)
    draw(page, *EVERYTHING)
    page.get_by_role("tab", name="Save").click()

    def save(name: str) -> Path:
        with page.expect_download() as started:
            page.get_by_role("button", name=name).click()
        target = tmp_path / started.value.suggested_filename
        started.value.save_as(target)
        return target

    rows = list(csv.reader(save("CSV: names and types").open()))
    assert rows[0] == ["cell", "scpalm_label", "scpalm_probability", "scpalm_cluster"] and len(rows) == 101
    assert rows[4][0] == f"'{FORMULA}", "a spreadsheet must not compute a name"
    column = list(csv.reader(save("CSV: a column").open()))
    assert column[0] == ["cell", "my_cells"] and {row[1] for row in column[1:]} == {"yes"}
    table = list(csv.DictReader(save("CSV: types, probabilities").open()))
    result = anndata.read_h5ad(save("h5ad: your file with types"))
    assert [row["scpalm_label"] for row in table] == list(result.obs["scpalm_label"])
    assert [row["scpalm_cluster"] for row in table] == list(result.obs["scpalm_cluster"])
    positions = np.array([[float(row["umap_1"]), float(row["umap_2"])] for row in table], np.float32)
    np.testing.assert_array_equal(positions, result.obsm["X_scpalm_umap"])
    assert save("PNG").read_bytes().startswith(b"\x89PNG")
    assert "<image" in save("SVG").read_text()


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


def test_a_wrong_file_is_explained(page: Page, server: Server, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.h5ad"
    wrong.write_text("These are no cells.")
    page.goto(server.url)
    page.set_input_files("input[type=file]", wrong)
    alert = page.wait_for_selector("[role=alert]")
    assert alert is not None and "h5ad" in alert.inner_text()
    assert page.get_by_role("button", name="Choose a file").is_visible()


def test_a_running_job_can_be_cancelled(page: Page, server: Server, tmp_path: Path) -> None:
    from scpalm.model.bundle import Bundle

    genes = Bundle.load(BUNDLE).vocabulary.symbols[:3000]
    counts = sparse.random(6_000, len(genes), 0.1, "csr", np.float32, np.random.default_rng(0))
    counts.data = np.ceil(counts.data * 5)
    cells = anndata.AnnData(counts)
    cells.var_names = genes
    cells.write_h5ad(tmp_path / "many.h5ad")
    page.goto(server.url)
    page.set_input_files("input[type=file]", tmp_path / "many.h5ad")
    page.locator("li.now", has_text="Embedding and naming").wait_for()
    job = re.search(r"job=(\w+)", page.url)
    assert job is not None
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as deleted:
        page.get_by_role("button", name="Cancel").click()
    assert deleted.value.status == 200
    page.get_by_role("button", name="Choose a file").wait_for()
    assert httpx.get(f"{server.url}/jobs/{job[1]}").json()["state"] == "cancelled"


def test_the_keyboard_is_enough(page: Page, server: Server, real_file: Path) -> None:
    open_file(page, server, real_file)
    before = drawn_pixels(page)
    page.locator(".plane").first.focus()
    for _ in range(6):
        page.keyboard.press("+")
    page.wait_for_function("performance.now() > 0")
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


def test_a_service_with_keys_asks_for_one(
    page: Page, start_server: Callable[..., Server], real_file: Path, tmp_path: Path
) -> None:
    secret, entry = new_key("reader")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [entry]}))
    server = start_server(api_keys_file=str(keys), results_dir=str(tmp_path / "jobs")).wait_until_ready()
    page.goto(server.url)
    field = page.get_by_label("API key")
    field.fill("wrong")
    page.get_by_role("button", name="Use").click()
    page.set_input_files("input[type=file]", real_file)
    page.locator(".key", has_text="does not accept this key").wait_for()
    field.fill(secret)
    page.get_by_role("button", name="Use").click()
    page.set_input_files("input[type=file]", real_file)
    page.wait_for_selector(".plane canvas")
    page.reload()
    page.wait_for_selector(".plane canvas")
    assert page.evaluate("sessionStorage.getItem('scpalm.key')") == secret
    assert page.evaluate("JSON.stringify(localStorage)").count(secret) == 0 and secret not in page.url


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
