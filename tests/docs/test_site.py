"""Sphinx builds the documentation without a warning: every page is reached, every link leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.problem_list import ADVICE, input_problems, service_problems
from tests.docs.test_commands import ROOT, pages

# A longer list is hard to scan.
MOST_ENTRIES = 12


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-n",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-c",
        "docs",
        ".",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_repository_is_in_the_site(site: Path) -> None:
    missing = [path for path in pages() if not (site / path.relative_to(ROOT)).with_suffix(".html").is_file()]
    assert missing == []


def test_the_first_page_leads_to_the_front_page(site: Path) -> None:
    assert 'url=docs/index.html"' in (site / "index.html").read_text()


def test_pages_load_nothing_from_other_sites(site: Path) -> None:
    text = (site / "docs" / "index.html").read_text()
    for part in text.split("<script")[1:]:
        assert "://" not in part.partition(">")[0]
    assert [line for line in text.splitlines() if 'rel="stylesheet"' in line and "://" in line] == []


def test_the_reference_of_commands_and_problems_is_made_from_the_code(site: Path) -> None:
    commands = (site / "docs" / "reference" / "commands.html").read_text()
    assert "scpalm integrate" in commands and "--batch-key" in commands
    text = (site / "docs" / "operate" / "problems.html").read_text()
    codes = [kind.code for kind in service_problems()]
    assert sorted(ADVICE) == sorted(codes)  # each kind of error has advice, and no advice is left over
    found = input_problems()
    assert {"negative-value", "total-needed", "unknown-drug", "log-of-log", "no-cells", "adapted-is-worse"} <= set(
        found
    )
    assert [code for code in (*codes, *found) if f">{code}<" not in text] == []


def test_no_folder_of_the_documentation_is_crowded() -> None:
    for folder in [ROOT / "docs", *(path for path in (ROOT / "docs").iterdir() if path.is_dir())]:
        assert len([path for path in folder.iterdir() if path.name != "__pycache__"]) <= MOST_ENTRIES, folder
