"""What README.md tells a newcomer to type works, in the order of the page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anndata
import pytest
import yaml

from tests.deploy.files import tool
from tests.docs.readme import ROOT, RUN_BY, kind_of, lines_of, python_block, readme_lines
from tests.e2e.conftest import Server, starter


def test_every_line_is_run_by_a_test() -> None:
    lines = readme_lines()
    assert len(lines) > 15 and [line for line in lines if kind_of(line) is None] == []
    assert {kind_of(line) for line in lines} == set(RUN_BY.values())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with starter(tmp_path) as start:
        yield start(results_dir=str(tmp_path / "jobs")).wait_until_ready()


def test_the_first_steps(server: Server, tmp_path: Path) -> None:
    serve, *lines = lines_of("service")
    # `make serve` itself would install; what it starts is what runs here.
    assert serve == "make serve" and "scpalm serve" in (ROOT / "Makefile").read_text()
    folder = tmp_path / "new"
    folder.mkdir()
    programs = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SCPALM_")}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "PYTHONPATH": str(ROOT)}
    script = ["set -eu", *lines, f"python -c {shlex.quote(python_block() + CHECK)}"]
    text = "\n".join(script).replace("localhost:8000", urlsplit(server.url).netloc)
    text = re.sub(r"\.venv/bin/(?=scpalm)", "", text)
    text = re.sub(r"(^|\n)scpalm ", r"\1python -m scpalm.app.cli ", text)
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    embedded = anndata.read_h5ad(folder / "embedded.h5ad")
    assert embedded.obsm["X_scpalm"].shape == (559, 384)
    # The key of the README's last step works: its entry is a line of the file, its hash that of the key.
    entry = json.loads(
        next(line for line in done.stdout.splitlines() if '"alice"' in line).partition(":")[2].strip(" []")
    )
    assert entry["name"] == "alice"


CHECK = """
assert adata.obsm["X_scpalm"].shape == (559, 384)
import numpy
served = anndata.read_h5ad("embedded.h5ad")
numpy.testing.assert_array_equal(served.obsm["X_scpalm"], adata.obsm["X_scpalm"])
"""


@pytest.mark.parametrize("line", lines_of("compose"))
def test_compose_knows_files_profiles_and_services(line: str) -> None:
    words = shlex.split(line)[2:]
    before, after = words[: words.index("up")], words[words.index("up") + 1 :]
    whole = yaml.safe_load(tool("docker-compose", *before, "config"))
    for scaled in after[1::2]:
        assert after[0] == "--scale" and scaled.partition("=")[0] in whole["services"]
    running = {name for name, service in whole["services"].items() if "profiles" not in service}
    if "--profile" in before:
        profile = before[before.index("--profile") + 1]
        assert any(profile in service.get("profiles", ()) for service in whole["services"].values())
    assert {"single", "prometheus", "grafana"} <= running


def test_the_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines_of("install"):
        (found,) = re.findall(r"\[([\w,]+)\]", line)
        assert set(found.split(",")) <= set(extras)
