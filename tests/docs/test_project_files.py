"""The files about the project name the release and the bundle that are in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import scpalm
from scpalm.model.bundle import Bundle
from scpalm.model.release import release

ROOT = Path(__file__).parents[2]


def test_the_citation_names_this_release_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == release() and citation["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["year"] == 2024


def test_the_changes_name_this_release_and_the_packaged_bundle() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    bundle = Bundle.load()
    assert re.search(rf"^## {re.escape(release())}\b", text, re.MULTILINE)
    assert re.search(rf"^### {bundle.name} {re.escape(bundle.version)}\b", text, re.MULTILINE)


def test_the_package_says_its_version() -> None:
    assert scpalm.__version__ == release()
