"""`scpalm check` says what would be read; `scpalm doctor` finds what is wrong with a machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scpalm.app.cli.main import cli
from scpalm.model.errors import InputError
from tests.training.tiny import tiny_counts, write_h5ad

GENES = ["CD3D", "LYZ", "MS4A1", "NKG7", "CD8A", "ERCC-00002", "nothing"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_h5ad(tmp_path / "cells.h5ad", tiny_counts(40, seed=0)[:, :7] + 1, GENES)


def test_the_report_names_cells_values_genes_and_what_to_expect(path: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(path)])
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert "40" in lines["cells"] and "counts from X" in lines["values"]
    assert "5 of 7 are known" in lines["genes"] and "1" in lines["left"] and "nothing" in lines["unknown"]
    assert "40 cells are too few" in done.output and "small panel" in done.output


def test_the_report_as_json_and_options(path: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(path), "--json", "--layer", "X"])
    found = json.loads(done.output)
    assert found["cells"] == 40 and found["input"]["detected"] == "counts" and found["coverage"]["genes_matched"] == 5


def test_a_file_that_would_be_refused_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").write_bytes(b"gene,cell1\nCD3D,3\n")
    failed = CliRunner().invoke(cli, ["check", str(tmp_path / "cells.h5ad")])
    assert isinstance(failed.exception, InputError) and "CSV" in str(failed.exception)


def states(done_output: str) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in json.loads(done_output)}


def test_a_healthy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCPALM_PORT", "0")
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = states(done.output)
    assert [found[what] for what in ("versions", "settings", "model", "redis", "port", "keys")] == ["ok"] * 6


def test_faults_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("SCPALM_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("SCPALM_BUNDLE", str(tmp_path))
        monkeypatch.setenv("SCPALM_REDIS_URL", "redis://127.0.0.1:9/0")
        done = CliRunner().invoke(cli, ["doctor", "--json"])
    found = states(done.output)
    assert done.exit_code == 1 and (found["model"], found["redis"], found["port"]) == ("fault", "fault", "note")


def test_an_unknown_setting_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCPALM_PROT", "8000")
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 1 and "fault settings" in done.output and "SCPALM_PORT" in done.output
