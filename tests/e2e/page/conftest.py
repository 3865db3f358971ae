"""A headless Chromium, and a file of real cells with hostile names. Without a Chromium these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from anndata import AnnData

from tests.e2e.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# Chromium draws WebGL in software only if it is allowed to.
FLAGS = ["--enable-unsafe-swiftshader", "--no-sandbox"]
HOSTILE = "<img src=x onerror=\"window.hacked='name'\"><script>window.hacked='script'</script>"
FORMULA = '=HYPERLINK("http://example.com","click")'
_PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, for one module: while it is open, its event loop runs in the thread of the tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One reader of the page, whose storage is kept between the tests of a module."""
    with browser.new_context(viewport={"width": 1280, "height": 820}, accept_downloads=True) as context:
        context.set_default_timeout(_PATIENCE_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page; a script error, a refused resource or a request to another host fails the test."""
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # The browser logs answers such as 404 as errors; the tests look at what the page says about them.
        if message.type == "error" and "Failed to load resource" not in message.text:
            faults.append(message.text)

    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    assert page.evaluate("window.hacked") is None
    page.close()
    assert faults == []


@pytest.fixture(scope="session")
def real_file(real_cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 real cells with a column of hostile texts, a column of numbers and a map of their own."""
    cells = real_cells.copy()
    cells.obs_names = [FORMULA if n == 3 else f"cell_{n}" for n in range(cells.n_obs)]
    cells.obs["group"] = [(HOSTILE, "plain")[n % 2] for n in range(cells.n_obs)]
    cells.obs["depth"] = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.obsm["X_umap"] = np.random.default_rng(0).normal(size=(cells.n_obs, 2)).astype(np.float32)
    path = tmp_path_factory.mktemp("page") / f"{'<b>cells'}.h5ad"
    cells.write_h5ad(path)
    return path


def open_file(page: Page, server: Server, path: Path) -> None:
    """Choose a file on the page and wait for its map."""
    page.goto(server.url)
    page.set_input_files("input[type=file]", path)
    page.wait_for_selector(".plane canvas")


def drawn_pixels(page: Page, number: int = 0) -> int:
    """How many pixels of a map are not empty. A test that looks at an empty canvas would be green on nothing."""
    return int(
        page.evaluate(
            """async (number) => {
                await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
                const source = document.querySelectorAll(".plane canvas")[number];
                const copy = document.createElement("canvas");
                [copy.width, copy.height] = [source.width, source.height];
                const context = copy.getContext("2d");
                context.drawImage(source, 0, 0);
                const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
                let count = 0;
                for (let at = 3; at < pixels.length; at += 4) if (pixels[at] > 0) count++;
                return count;
            }""",
            number,
        )
    )
