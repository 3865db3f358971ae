"""The page at /: its size, how soon it is ready, from a file to a coloured map, and how fast 100,000 points move.

    PYTHONPATH=. python tests/bench/bench_page.py [FILE.h5ad]

It needs Chromium and playwright. The file should have 3,000 cells; without one, 3,000 random cells are used. This
script plays the service for the 100,000 points, since only the browser is measured there.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
from scipy import sparse

from scpalm.app.http.web.page import BUILT
from scpalm.model.bundle import Bundle
from tests.e2e.conftest import BUNDLE, starter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page, Route

FLAGS = ["--enable-unsafe-swiftshader", "--no-sandbox"]
NUM_POINTS = 100_000
JOB = "0" * 32
# Waits until what was asked of the GL has been drawn.
DRAWN = """
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
const drawn = async () => {
  await frame();
  await frame();
  const gl = document.querySelector(".plane canvas").getContext("webgl2");
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
};
"""
OTHER_MAP = f"""async () => {{
  {DRAWN}
  const choice = document.querySelector(".toolbar select");
  choice.value = "X_umap";
  choice.dispatchEvent(new Event("change", {{ bubbles: true }}));
  const arrived = () => performance.getEntriesByType("resource").find((one) => one.name.includes("X_umap"));
  while (!arrived()?.responseEnd) await new Promise((resolve) => setTimeout(resolve, 1));
  await drawn();
  return performance.now() - arrived().responseEnd;
}}"""
RECOLOUR = f"""async () => {{
  {DRAWN}
  const times = [];
  for (let i = 0; i < 5; i++) {{
    const started = performance.now();
    document.querySelector(".entry").click();
    await drawn();
    times.push(performance.now() - started);
  }}
  return times.sort((a, b) => a - b)[2];
}}"""
# The pointer moves within the page, since commands from outside would be measured, too.
MOVE = """async () => {
  const plane = document.querySelector(".plane");
  const box = plane.getBoundingClientRect();
  const gl = plane.querySelector("canvas").getContext("webgl2");
  plane.setPointerCapture = () => {};
  const fire = (kind, at) => {
    const where = { pointerId: 1, clientX: box.x + at, clientY: box.y + 200, bubbles: true };
    plane.dispatchEvent(new PointerEvent(kind, where));
  };
  fire("pointerdown", 100);
  const times = [];
  const started = performance.now();
  while (performance.now() - started < 4000) {
    times.push(await new Promise((resolve) => requestAnimationFrame(resolve)));
    fire("pointermove", 100 + (times.length % 100));
    gl.finish();
  }
  fire("pointerup", 100);
  return times;
}"""


def sizes() -> None:
    files = [path for path in BUILT.rglob("*") if path.is_file() and path.name != "licenses.txt"]
    packed = sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)
    print(f"built files, gzip            {packed / 1000:8.1f} kB")


@contextmanager
def opened(url: str) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 820})
        page.goto(url)
        yield page
        browser.close()


def ready(url: str) -> None:
    with opened("about:blank") as page:
        started = time.monotonic()
        page.goto(url)
        page.wait_for_function("document.querySelector('.promises')?.innerText.includes('hours')")
        print(f"page ready                   {time.monotonic() - started:8.2f} s")


def random_cells(folder: Path) -> Path:
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:14_000]
    counts = sparse.random(3_000, len(genes), 0.08, "csr", np.float32, np.random.default_rng(0))
    counts.data = np.ceil(counts.data * 4)
    cells = anndata.AnnData(counts)
    cells.var_names = genes
    cells.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def from_file_to_map(url: str, path: Path) -> None:
    with opened(url) as page:
        started = time.monotonic()
        page.set_input_files("input[type=file]", path)
        page.wait_for_selector(".plane canvas", timeout=120_000)
        print(f"file to coloured map         {time.monotonic() - started:8.1f} s")
        page.get_by_label("Gene", exact=True).fill("ACTB")
        started = time.monotonic()
        page.keyboard.press("Enter")
        page.get_by_text("ACTB, measured").wait_for()
        print(f"first gene                   {1000 * (time.monotonic() - started):8.0f} ms")
        page.get_by_label("Gene", exact=True).fill("LYZ")
        started = time.monotonic()
        page.keyboard.press("Enter")
        page.get_by_text("LYZ, measured").wait_for()
        print(f"another gene                 {1000 * (time.monotonic() - started):8.0f} ms")


def _npy(values: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def play_service(page: Page) -> None:
    """Answer requests for a job of 100,000 cells."""
    rng = np.random.default_rng(0)
    group = rng.integers(20, size=NUM_POINTS)
    positions = (10 * rng.normal(size=(20, 2))[group] + rng.normal(size=(NUM_POINTS, 2))).astype(np.float32)
    outputs = [
        {"name": name, "width": 1, "columns": [name], "placement": "obs"}
        for name in ("annotate", "umap", "umap_cluster")
    ]
    labels = {"kind": "categories", "categories": [f"type {n}" for n in range(20)], "values": group.tolist()}
    note: dict[str, Any] = {
        "coverage": {
            "genes_in": 1,
            "genes_matched": 1,
            "genes_of_model": 9_999,
            "counts_matched": 1,
            "unmatched": [],
            "left_out": {},
            "repaired": {},
        },
        "input": None,
        "warnings": [],
    }
    model = {"name": "m", "version": "1"}
    view = {"model": model, "num_cells": NUM_POINTS, "outputs": outputs, "obs": [], "colors": {}, "maps": ["X_umap"]}
    state = {"id": JOB, "state": "succeeded", "rows_done": NUM_POINTS, "rows": NUM_POINTS, "stage": None}
    answers: dict[str, Callable[[Route], None]] = {
        f"**/jobs/{JOB}": lambda route: route.fulfill(json=state),
        f"**/jobs/{JOB}/view": lambda route: route.fulfill(json={**view, "note": note}),
        "**/column?*name=annotate": lambda route: route.fulfill(body=json.dumps(labels)),
        "**/column?*name=umap_cluster": lambda route: route.fulfill(body=json.dumps(labels)),
        "**/column?*name=umap": lambda route: route.fulfill(body=_npy(positions), content_type="application/x-npy"),
    }
    other = _npy(positions[::-1].copy())
    answers["**/column?*name=X_umap"] = lambda route: route.fulfill(body=other, content_type="application/x-npy")
    for pattern, answer in answers.items():
        page.route(pattern, answer)


def many_points(url: str) -> None:
    with opened("about:blank") as page:
        play_service(page)
        page.goto(f"{url}/#job={JOB}")
        page.wait_for_selector(".plane canvas")
        page.wait_for_timeout(1000)
        print(f"100,000 points, drawn        {page.evaluate(OTHER_MAP):8.0f} ms")
        print(f"100,000 points, recoloured   {page.evaluate(RECOLOUR):8.0f} ms")
        page.get_by_role("button", name="Move").click()
        frames = page.evaluate(MOVE)
        late = [time for time in frames if time > frames[0] + 1000]
        print(f"frames while it moves        {1000 * (len(late) - 1) / (late[-1] - late[0]):8.0f} /s")


def main() -> None:
    sizes()
    with tempfile.TemporaryDirectory() as name, starter(Path(name)) as start:
        url = start(results_dir=f"{name}/jobs").wait_until_ready().url
        ready(url)
        from_file_to_map(url, Path(sys.argv[1]) if len(sys.argv) > 1 else random_cells(Path(name)))
        many_points(url)


if __name__ == "__main__":
    main()
