from __future__ import annotations

import json
from pathlib import Path

import pytest

from scpalm.training.metrics.rows import Row, record_rows, summarise


def rows(dataset: str, values: list[float]) -> list[Row]:
    return [{"dataset": dataset, "method": "h_C", "seed": i, "ari": v, "zero_shot": True} for i, v in enumerate(values)]


def test_a_summary_is_the_mean_and_the_sample_sd_over_seeds() -> None:
    (summary,) = summarise(rows("a", [0.1, 0.2, 0.6]))
    assert summary["ari"] == pytest.approx(0.3)
    assert summary["ari_sd"] == pytest.approx(0.2646, abs=1e-4)
    assert summary["seeds"] == 3
    assert summary["zero_shot"] is True


def test_recording_replaces_the_rows_of_the_same_data_set_only(tmp_path: Path) -> None:
    manifest = {"name": "x", "evaluation": summarise(rows("a", [0.1]) + rows("b", [0.2]))}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    record_rows(tmp_path, rows("b", [0.9]))
    stored = json.loads((tmp_path / "manifest.json").read_text())
    assert stored["name"] == "x"
    assert {row["dataset"]: row["ari"] for row in stored["evaluation"]} == {"a": 0.1, "b": 0.9}
