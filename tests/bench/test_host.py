"""The device of the host's benchmark, and one short run of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from scpalm.app.serving.opener import session_info
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.shapes import synthetic_rows
from tests.bench.bench_host import rate_of
from tests.bench.bench_parsing import make_cells
from tests.bench.sleeping_device import Bench, SleepingSession, feed, prepare_all


def bench_of(num_cells: int) -> Bench:
    bundle = Bundle.load()
    genes = bundle.vocabulary.symbols[:2000]
    counts = make_cells(genes, num_cells, 50)
    return Bench(bundle, counts, genes, prepare_all(bundle, counts, genes), 256, 1e5)


def test_the_device_counts_the_time_in_its_runs() -> None:
    session = SleepingSession(session_info(Bundle.load()), 1e6)
    session.spans = [(0.0, 1.0, 10), (2.0, 3.0, 10), (4.0, 6.0, 40)]
    share, rate = session.busy()
    assert share == 0.75
    assert rate == 12.5
    encoded = session.encode(synthetic_rows(session.info.num_genes, 4, 10))
    assert encoded.embedding.shape == (4, session.info.embedding_width)


def test_every_cell_passes_the_worker_once() -> None:
    session = asyncio.run(feed(bench_of(1200), 1e6, seconds=0.0))
    assert sum(cells for *_, cells in session.spans) == 1200
    assert max(cells for *_, cells in session.spans) <= 256


def test_the_rate_comes_from_the_kit(tmp_path: Path) -> None:
    lines = [
        {"key": "matrix_product", "measured": 700.0},
        {"key": "cells_per_second_from_host", "measured": 30000.0},
        {"key": "cells_per_second_from_host", "measured": 60000.0},
    ]
    (tmp_path / "kit.json").write_text(json.dumps({"lines": lines}))
    assert rate_of(tmp_path / "kit.json") == 60000.0
    (tmp_path / "kit.json").write_text(json.dumps({"lines": []}))
    with pytest.raises(SystemExit, match="has no rates"):
        rate_of(tmp_path / "kit.json")
