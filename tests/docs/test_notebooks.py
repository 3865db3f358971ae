"""The tutorial notebooks run from top to bottom, and what they commit is small."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from docs.tools import notebooks

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
PANCREAS = ROOT.parent / "shared" / "data" / "cells" / "eval" / "pancreas_panc8small_5tech.h5ad"
LARGEST_NOTEBOOK, LARGEST_PICTURE = 400_000, 50_000


def _run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The number of pictures, and all text."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    cells = notebooks.run(TUTORIALS / name, folder).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    text = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return pictures, text


def test_the_tutorial_on_immune_cells_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("celltypist", reason="the sample cells are a file of celltypist")
    pictures, text = _run("immune_cells.ipynb", tmp_path, monkeypatch)
    assert pictures == 9
    for part in ("559 cells x 32786 genes", "counts from X: every value is a whole number", "(559, 384)", "macrophage"):
        assert part in text
    assert (tmp_path / "named.h5ad").is_file()


def test_the_tutorial_on_the_pancreas_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("harmonypy", reason="integration needs harmonypy")
    path = Path(os.environ.get("SCPALM_PANCREAS", PANCREAS))
    if not path.is_file():
        pytest.skip(f"needs the pancreas cells of five technologies: {path}, or SCPALM_PANCREAS")
    monkeypatch.setenv("SCPALM_PANCREAS", str(path))
    pictures, text = _run("pancreas.ipynb", tmp_path, monkeypatch)
    assert pictures == 2
    assert "each batch centred, 30 principal components, Harmony" in text
    assert "few-panel-genes | The file has 62 of the 697 genes" in text


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_committed_notebook_was_run_in_order_and_is_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST_NOTEBOOK
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert max(len(output.get("data", {}).get("image/png", "")) for output in outputs) < LARGEST_PICTURE
    assert str(ROOT) not in path.read_text(encoding="utf-8")
