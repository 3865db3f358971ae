"""One exported bundle with random weights, for every test that needs a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from scpalm.training.export.bundle import BundleOptions, export_run
from tests.training.tiny import write_corpus, write_random_run


@dataclass(frozen=True)
class Exported:
    """The folders of a corpus, a run and its bundle, and the report of the export."""

    corpus: Path
    run: Path
    bundle: Path
    report: list[str]


_made: list[Exported] = []


def exported(factory: pytest.TempPathFactory) -> Exported:
    """Made once per test session, because the export takes seconds."""
    if not _made:
        folder = factory.mktemp("exported")
        corpus = write_corpus(folder)
        run = write_random_run(folder / "run", corpus)
        report = export_run(run, folder / "bundle", BundleOptions(name="tiny", version="7"))
        _made.append(Exported(corpus, run, folder / "bundle", report))
    return _made[0]
