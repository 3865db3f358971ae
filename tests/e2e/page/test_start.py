"""The start of the page: a file is dropped, refused, cancelled, or needs a key."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import httpx
import numpy as np
from scipy import sparse

from scpalm.app.auth.keys import new_key
from tests.e2e.conftest import BUNDLE, Server
from tests.e2e.page.conftest import drawn_pixels

if TYPE_CHECKING:
    from playwright.sync_api import Page


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
