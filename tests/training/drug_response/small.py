"""A small world of drug-response tables and a bundle that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from scpalm.model.bundle import Bundle
from scpalm.training.drug_response.data.tables import Tables, load_tables
from scpalm.training.drug_response.features import LineEmbeddings, embed_lines
from tests.training.bundles import exported
from tests.training.drug_response.small_tables import write_tables


@dataclass(frozen=True)
class Small:
    """20 drugs, 40 lines, 60 genes of the tiny bundle's vocabulary."""

    folder: Path
    bundle: Bundle
    tables: Tables
    lines: LineEmbeddings


def make_small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    bundle = Bundle.load(exported(tmp_path_factory).bundle)
    folder = write_tables(tmp_path_factory.mktemp("drug_response"), bundle.vocabulary.symbols[:60])
    tables = load_tables(folder)
    return Small(folder, bundle, tables, embed_lines(tables, bundle, threads=1))
