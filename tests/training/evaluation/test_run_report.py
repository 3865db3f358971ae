from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from scpalm.training.evaluation import run_report
from scpalm.training.evaluation.run_report import write_report
from scpalm.training.runs.run import Run, RunError
from tests.training.bundles import Exported

LINES = [
    {"stage": "stage1", "step": step, "mse": 1 / step, "held_out_mse": 2 / step, "used_codes": 7, "lr": 0.1}
    for step in (10, 20, 20)
]


@pytest.fixture
def run(tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    # Compiling umap takes half a minute.
    monkeypatch.setattr(run_report, "_umap", lambda vectors, seed, hamming: np.asarray(vectors[:, :2], np.float32))
    run = Run(Path(shutil.copytree(tiny_export.run, tmp_path / "a <run>")))
    text = "".join(json.dumps(line) + "\n" for line in [*LINES, {"stage": "stage2", "step": 5, "mse": 0.5}])
    (run.path / "curves.jsonl").write_text(text + '{"stage": "stage2", "st')  # killed while writing
    return run


def pictures(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r"src='data:image/png;base64,([^']+)'", page)]


def test_a_finished_run_has_curves_codes_and_cells_in_one_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert write_report(run, out) == out
    page = out.read_text()
    # Two pictures of curves, one of codes, three UMAPs; nothing is loaded from other files.
    assert [picture[:4] for picture in pictures(page)] == [b"\x89PNG"] * 6
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "Training run a &lt;run&gt;" in page
    for text in ("Stage 1, pathways", "Stage 2, cells", "UMAP of h_C, 300 cells", "At step 20: mse 0.05", "num_codes"):
        assert text in page
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_unfinished_run_reports_what_exists(run: Run, tmp_path: Path) -> None:
    (run.path / "stage2.pt").unlink()
    page = write_report(run, tmp_path / "report.html").read_text()
    assert "UMAP of the codes (stage 2 has no checkpoint yet)" in page
    (run.path / "stage1.pt").unlink()
    page = write_report(run, tmp_path / "report.html").read_text()
    assert "No checkpoint of stage 1 yet" in page
    assert len(pictures(page)) == 2


def test_a_run_without_curves_says_so(run: Run, tmp_path: Path) -> None:
    (run.path / "curves.jsonl").unlink()
    with pytest.raises(RunError, match="has no curves yet"):
        write_report(run, tmp_path / "report.html")
    with pytest.raises(RunError, match="is not a run"):
        write_report(Run(tmp_path), tmp_path / "report.html")
