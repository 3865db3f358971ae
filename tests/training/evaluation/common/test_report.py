from __future__ import annotations

import json
from pathlib import Path

import pytest

from scpalm.model.bundle import Bundle, sha256_of
from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.report import read_rows, write_report
from scpalm.training.metrics.rows import Row
from tests.training.bundles import Exported


def test_the_page_has_every_number_and_nothing_a_name_could_inject(tiny_export: Exported, tmp_path: Path) -> None:
    rows: list[Row] = [
        {"dataset": "<script>", "method": "h_C", "seed": seed, "ari": 0.5 + seed / 5, "zero_shot": True}
        for seed in (0, 1)
    ]
    rows += [{"task": "imputation", "dataset": "b", "method": "knn", "seed": 3, "rmse": 0.25, "zero_shot": False}]
    picture = tmp_path / "codes.png"
    picture.write_bytes(b"\x89PNG")
    bundle = Bundle.load(tiny_export.bundle)
    write_report(tmp_path / "page.html", rows, bundle, [picture])
    page = (tmp_path / "page.html").read_text()
    assert "0.600 ± 0.141" in page and "0.250" in page and "fitted to the set" in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert sha256_of(bundle.path / "manifest.json") in page and "seeds 0, 1" in page
    assert "data:image/png;base64," in page and "http" not in page


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(path)
    path.write_text(json.dumps([{"ari": 1}]))
    with pytest.raises(InputError, match="not a list of rows"):
        read_rows(path)
