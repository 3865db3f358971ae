from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
import pytest

from scpalm.app.cli.main import main
from scpalm.app.settings import Settings
from scpalm.model import engine as engine_module
from tests.app.fakes import FakeSession


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["scpalm", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
        sys.exit(0)
    code = caught.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


@contextmanager
def kept_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    data = anndata.AnnData(np.arange(1, 61, dtype=np.float32).reshape(3, 20))
    data.var_names = [f"GENE{n}" for n in range(20)]
    data.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, session: FakeSession) -> None:
    monkeypatch.setattr(engine_module, "open_session", lambda bundle, **options: session)


def test_embed_writes_the_file_and_shows_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cells: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, "embed", cells, "-o", tmp_path / "out.h5ad", "--bundle", bundle_dir) == 0
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"].shape == (3, 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "20 of 20 genes" in captured.err and "3/3" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "missing.h5ad", "-o", "out.h5ad"], "missing.h5ad does not exist"),
        (["embed", "CELLS", "-o", "CELLS", "--bundle", "BUNDLE"], "the input file"),
        (["embed", "CELLS", "-o", "no/such/folder/out.h5ad", "--bundle", "BUNDLE"], "No such file"),
        (["embed", "CELLS", "-o", "out.h5ad", "--bundle", "no-bundle"], "manifest.json"),
        (["embed", "CELLS", "-o", "out.h5ad", "--bundle", "BUNDLE", "--layer", "spliced"], "no layer 'spliced'"),
        (["embed", "GARBAGE", "-o", "out.h5ad", "--bundle", "BUNDLE"], "HDF5"),
        (["models", "--bundle", "no-bundle"], "manifest.json"),
    ],
)
def test_user_errors_are_one_line_with_status_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cells: Path,
    bundle_dir: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.h5ad").write_bytes(b"garbage" * 100)
    places = {"CELLS": cells, "BUNDLE": bundle_dir, "GARBAGE": tmp_path / "garbage.h5ad"}
    assert run(monkeypatch, *(places.get(argument, argument) for argument in arguments)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("scpalm: ") and words in lines[0]
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "x.h5ad"],
        ["fly"],
        ["embed", "x", "-o", "y", "--input", "fpkm"],
        ["serve", "--port", "99999"],
        ["serve", "--port", "-1"],
    ],
)
def test_wrong_usage_exits_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["embed", "CELLS", "-o", "out.h5ad"], ["serve", "--port", "0"]])
def test_a_missing_runtime_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cells: Path,
    bundle_dir: Path,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    def absent(bundle: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(engine_module, "open_session", absent)
    monkeypatch.setattr("scpalm.app.telemetry.logging.configure_logging", lambda log_format: None)
    monkeypatch.chdir(tmp_path)
    given = [cells if argument == "CELLS" else argument for argument in arguments]
    with kept_signals():
        assert run(monkeypatch, *given, "--bundle", bundle_dir) == 1
    error = capsys.readouterr().err
    assert "pip install 'scpalm[cpu]'" in error.strip().splitlines()[-1]
    assert error.strip().splitlines()[-1].startswith("scpalm: ")
    assert "Traceback" not in error


def test_models_prints_the_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle_dir: Path
) -> None:
    assert run(monkeypatch, "models", "--bundle", bundle_dir, "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "fake"
    assert run(monkeypatch, "models", "--bundle", bundle_dir) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model      fake 0.1") and len(lines) < 20
    assert run(monkeypatch, "models") == 0
    out = capsys.readouterr().out
    assert "ic50" in out and "pca50 (fitted)" in out and len(out.splitlines()) < 50


def test_serve_help_lists_every_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "serve", "--help") == 0
    text = capsys.readouterr().out
    missing = [name for name in Settings.model_fields if f"SCPALM_{name.upper()}" not in text]
    assert not missing


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_an_option_given_twice_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cells: Path, tmp_path: Path
) -> None:
    """Lists may be repeated; of anything else only the last value would be read."""
    out = tmp_path / "out.h5ad"
    assert run(monkeypatch, "impute", cells, "-o", out, "--scale", "log", "--scale", "counts") == 2
    assert "--scale" in capsys.readouterr().err
    assert run(monkeypatch, "embed", cells, "-o", out, "-o", out) == 2
    assert not out.exists()


@pytest.mark.parametrize("name", ["out.zarr", "out.xlsx", "out"])
def test_an_output_of_another_format_is_refused_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cells: Path, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(engine_module, "load", None)
    assert run(monkeypatch, "embed", cells, "-o", tmp_path / name) == 1
    assert "does not end in" in capsys.readouterr().err
