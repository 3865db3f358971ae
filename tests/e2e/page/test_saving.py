"""What the page saves: tables, the h5ad file, pictures and drug response."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np

from tests.e2e.conftest import Server
from tests.e2e.page.conftest import FORMULA, open_file
from tests.e2e.page.gestures import EVERYTHING, draw

if TYPE_CHECKING:
    from playwright.sync_api import Page


def save(page: Page, folder: Path, name: str) -> Path:
    """Click a button that saves a file, and keep the file in a folder."""
    with page.expect_download() as started:
        page.get_by_role("button", name=name).click()
    target = folder / started.value.suggested_filename
    started.value.save_as(target)
    return target


def test_results_and_selections_can_be_saved(page: Page, server: Server, real_file: Path, tmp_path: Path) -> None:
    open_file(page, server, real_file)
    draw(page, *EVERYTHING)
    page.get_by_role("tab", name="Save").click()

    rows = list(csv.reader(save(page, tmp_path, "CSV: names and types").open()))
    assert rows[0] == ["cell", "scpalm_label", "scpalm_probability", "scpalm_cluster"] and len(rows) == 101
    assert rows[4][0] == f"'{FORMULA}", "a spreadsheet must not compute a name"
    column = list(csv.reader(save(page, tmp_path, "CSV: a column").open()))
    assert column[0] == ["cell", "my_cells"] and {row[1] for row in column[1:]} == {"yes"}
    table = list(csv.DictReader(save(page, tmp_path, "CSV: types, probabilities").open()))
    result = anndata.read_h5ad(save(page, tmp_path, "h5ad: your file with types"))
    assert [row["scpalm_label"] for row in table] == list(result.obs["scpalm_label"])
    assert [row["scpalm_cluster"] for row in table] == list(result.obs["scpalm_cluster"])
    positions = np.array([[float(row["umap_1"]), float(row["umap_2"])] for row in table], np.float32)
    np.testing.assert_array_equal(positions, result.obsm["X_scpalm_umap"])
    assert save(page, tmp_path, "PNG").read_bytes().startswith(b"\x89PNG")
    assert "<image" in save(page, tmp_path, "SVG").read_text()


def test_drug_response_can_be_saved(page: Page, server: Server, real_file: Path, tmp_path: Path) -> None:
    open_file(page, server, real_file)
    page.get_by_role("tab", name="Drugs").click()
    page.get_by_label("Group by").select_option("obs:group")
    page.locator(".heat th[scope=col]", has_text="plain").wait_for()
    page.get_by_label("Search drugs").fill("Trametinib")
    shown = float(page.locator(".heat tbody tr").locator("td").last.inner_text())
    rows = list(csv.DictReader(save(page, tmp_path, "CSV: all drugs and groups").open()))
    assert len(rows) == 2 * 223 and {row["cells"] for row in rows} == {"50"}
    (row,) = (row for row in rows if row["drug"] == "Trametinib" and row["group"] == "plain")
    assert round(float(row["ic50"]), 1) == shown
    assert float(row["ic50_lower"]) < float(row["ic50"]) < float(row["ic50_upper"])
    assert row["ic50_relative"] and row["ic50_percentile"] and row["domain"]
