"""``-`` as a file, ``--json``, examples in the help, completion."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scpalm.app.cli.pipes import as_files, is_pipe
from scpalm.model.errors import ParameterError
from tests.app.offline.test_files import make_cells


def scpalm(*words: str, data: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCPALM_")} | variables
    command = [sys.executable, "-m", "scpalm.app.cli", *words]
    return subprocess.run(command, input=data, capture_output=True, env=environment, check=False)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    names = Bundle.load(DEFAULT_BUNDLE).vocabulary.symbols[:2000]
    counts = np.random.default_rng(0).poisson(1.0, (6, len(names))).astype(np.float32)
    path = tmp_path_factory.mktemp("pipes") / "cells.h5ad"
    cells = anndata.AnnData(counts, var=pd.DataFrame(index=names))
    cells.write_h5ad(path)
    return path.read_bytes()


def test_cells_pass_from_command_to_command(body: bytes, tmp_path: Path) -> None:
    embedded = scpalm("embed", "-", "-o", "-", data=body)
    assert embedded.returncode == 0, embedded.stderr
    (tmp_path / "embedded.h5ad").write_bytes(embedded.stdout)
    values = anndata.read_h5ad(tmp_path / "embedded.h5ad").obsm["X_scpalm"]
    table = scpalm("embed", "-", "-o", "-.csv", data=embedded.stdout)
    np.testing.assert_array_equal(pd.read_csv(io.BytesIO(table.stdout), index_col="cell").to_numpy(np.float32), values)
    checked = scpalm("check", "-", "--json", data=body)
    assert json.loads(checked.stdout)["cells"] == 6


def test_json_says_what_was_read(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").write_bytes(body)
    done = scpalm("embed", str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "out.npy"), "--json")
    note = json.loads(done.stdout)
    assert note["coverage"]["genes_matched"] == 2000 and note["input"]["detected"] == "counts"
    both = scpalm("embed", str(tmp_path / "cells.h5ad"), "-o", "-", "--json")
    assert both.returncode == 1 and both.stdout == b"" and both.stderr.count(b"\n") == 1


def test_a_failed_command_writes_nothing_to_stdout() -> None:
    done = scpalm("embed", "-", "-o", "-", data=b"not a file of cells")
    assert done.returncode == 1 and done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_binary_output_is_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_cells(2).write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(ParameterError, match="terminal"), as_files(tmp_path / "cells.h5ad", Path("-")):
        pass
    with as_files(tmp_path / "cells.h5ad", Path("-.csv")) as (_, target):
        assert target.suffix == ".csv"


@pytest.mark.parametrize(
    ("name", "pipe"), [("-", True), ("-.npy", True), ("-x.csv", False), ("a/-", False), ("a", False)]
)
def test_which_paths_are_pipes(name: str, pipe: bool) -> None:
    assert is_pipe(Path(name)) is pipe


def test_every_command_has_an_example_and_can_be_completed() -> None:
    import typer

    from scpalm.app.cli.main import cli

    commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    assert {name for name, command in commands.items() if "Example: scpalm" not in (command.help or "")} == set()
    # As the script that --install-completion writes calls the program.
    asked = {"COMP_WORDS": "scpalm emb", "COMP_CWORD": "1", "_SCPALM_COMPLETE": "complete_bash"}
    program = Path(sys.executable).parent / "scpalm"
    done = subprocess.run([program], env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["embed"]
