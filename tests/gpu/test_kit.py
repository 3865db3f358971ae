"""The rehearsal of the GPU kit, on the CPU and without the packages that a GPU machine may lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from tests.gpu.kit.cells import draw, repeated
from tests.gpu.kit.flop import token_flop
from tests.gpu.kit.random_bundle import basis_of
from tests.gpu.kit.report import Report

ROOT = Path(__file__).parents[2]
MISSING = (
    *("anndata", "click", "fastapi", "h5py", "harmonypy", "httpx", "igraph", "matplotlib", "numba", "onnxscript"),
    *(
        "orjson",
        "prometheus_client",
        "psutil",
        "pydantic",
        "pydantic_settings",
        "rdkit",
        "redis",
        "scanpy",
        "sknetwork",
    ),
    *("starlette", "tensorboard", "tqdm", "typer", "umap", "uvicorn", "zarr"),
)
# Python imports a module of this name in every process, so also in those that the kit starts.
SITECUSTOMIZE = f"import sys\nsys.modules.update(dict.fromkeys({MISSING!r}))\n"


def run_kit(folder: Path, *arguments: str) -> dict[str, object]:
    """Run the kit's rehearsal and return its JSON."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    # Other tests use the other cores; threads that wait for each other would take many times as long.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.gpu.kit", "--small", "--device", "cpu", "--json", str(folder / "kit.json")]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads((folder / "kit.json").read_text())
    return found


def measured(found: dict[str, object], key: str) -> list[float]:
    lines = found["lines"]
    assert isinstance(lines, list)
    return [line["measured"] for line in lines if line["key"] == key]


def test_the_rehearsal_measures_everything_without_the_packages_of_service_and_training(tmp_path: Path) -> None:
    found = run_kit(tmp_path, "--minutes", "9")
    assert found["failures"] == {}
    assert len(measured(found, "matrix_product")) == 3
    assert min(measured(found, "codes_equal")) >= 0.999
    assert min(measured(found, "cosine_h_C") + measured(found, "cosine_embedding")) >= 0.9999
    assert min(measured(found, "cosine_imputed")) >= 0.9999
    assert max(measured(found, "ic50_difference")) < 1e-3
    assert min(measured(found, "ic50_rate")) > 0 and measured(found, "ic50_same_bits")
    assert set(measured(found, "same_bits")) == {1.0}
    for key in ("cells_per_second_from_host", "cells_per_second_embedding", "cells_per_second_resident"):
        assert min(measured(found, key)) > 0
    assert min(measured(found, "host_to_answer")) > 0
    assert len(measured(found, "training_cells_per_second")) == 2  # both stages


def test_a_section_that_fails_or_takes_too_long_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "kit.json", minutes=1.0, facts={"card": "none"})

    def broken() -> None:
        raise RuntimeError("no kernel image")

    def slow() -> None:
        report.add("rate", "measured in time", 12.0, "cells/s", wanted=20.0)
        time.sleep(30)

    def good() -> None:
        report.add("rate", "afterwards", 21.0, "cells/s", wanted=20.0)

    report.run("broken", 10.0, broken)
    report.run("slow", 1.0, slow)
    report.run("good", 10.0, good)
    written = json.loads((tmp_path / "kit.json").read_text())
    assert written["card"] == "none"
    assert written["failures"] == {"broken": "RuntimeError: no kernel image", "slow": "stopped after 1 s"}
    assert [line["section"] for line in written["lines"]] == ["slow", "good"]
    shown = capsys.readouterr().out
    assert shown.count("below what is wanted") == 1
    assert "no kernel image" in shown


def test_a_run_whose_minutes_are_over_skips_the_rest() -> None:
    report = Report(None, minutes=0.0, facts={})
    report.run("late", 10.0, pytest.fail)
    assert report.failures == {"late": "skipped: the minutes are over"}


def test_drawn_cells_have_about_the_wanted_number_of_genes() -> None:
    drawn = draw(basis_of(Bundle.load()), 8, 800)
    rows = drawn.rows()
    rows.check(drawn.num_genes)
    assert 500 < rows.lengths().mean() < 1200
    totals = np.add.reduceat(np.expm1(rows.value.astype(np.float64)), rows.indptr[:-1])
    np.testing.assert_allclose(totals, 1e4, rtol=1e-4)
    twice = repeated(rows, 13)
    assert len(twice) == 13
    np.testing.assert_array_equal(twice.lengths()[8:], rows.lengths()[:5])


def test_the_work_of_a_cell_includes_attention() -> None:
    N, D, K, narrow = 96, 96, 128, 4  # sizes of `mini`, two layers in each encoder
    layer = 24 * N * D * D + 4 * N * N * D  # projections and feed-forward, and attention
    first_encoder = 2 * layer + 2 * N * D * narrow + 2 * N * narrow * K
    T = N + 1  # with the cell token, which is alone in the last layer
    second_encoder = (24 * T * D * D + 4 * T * T * D) + (6 * T * D * D + 4 * T * D + 18 * D * D)
    read_in = 2 * N * D * narrow + 2 * N * narrow * D
    assert token_flop(Bundle.load()) == first_encoder + second_encoder + read_in
