"""Take docs/page.png: the page with its sample, in headless Chromium.

PYTHONPATH=. python docs/tools/take_screenshot.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.e2e.conftest import starter

TARGET = Path(__file__).parents[1] / "page.png"
FLAGS = ["--enable-unsafe-swiftshader", "--no-sandbox"]


def main() -> None:
    """Start a server, open its sample, select a type and save the picture."""
    with tempfile.TemporaryDirectory() as name, starter(Path(name)) as start, sync_playwright() as running:
        url = start().wait_until_ready().url
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.goto(url)
        page.get_by_role("button", name="Try the sample").click()
        page.wait_for_selector(".plane canvas", timeout=120_000)
        page.locator(".pick").first.click()
        for caption in ("Codes that are more frequent", "Genes that are higher"):
            page.locator("table", has_text=caption).locator("tbody tr").first.wait_for(timeout=120_000)
        page.mouse.move(0, 0)
        page.screenshot(path=TARGET)
        browser.close()
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
