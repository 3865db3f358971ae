"""The tables of cell types are consistent and cover the data."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import pyarrow.parquet as pq
import pytest

from scpalm.training.cell_types.table import CellType, CellTypeTable, cell_type_table, evaluation_labels

DATA = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
PROFILES = (
    "cellprofiles_adult_compressed",
    "cellprofiles_adult_cpm",
    "cellprofiles_fetal_descartes_cpm",
    "fetal_pfc_gse104276_cpm",
    "hca_lung_pseudobulk_counts_numbat",
    "northstar_human_cpm",
)


def test_each_label_of_a_source_occurs_once() -> None:
    keys = [(cell_type.label, cell_type.source) for cell_type in cell_type_table().cell_types]
    assert len(keys) == len(set(keys))


def test_ontology_ids_are_well_formed_and_a_name_has_one_id_and_one_broad_type() -> None:
    by_name: dict[str, set[tuple[str, str]]] = {}
    for cell_type in cell_type_table().cell_types:
        assert cell_type.label and cell_type.source and cell_type.name and cell_type.tissue
        assert not cell_type.cell_ontology_id or re.fullmatch(r"CL:\d{7}", cell_type.cell_ontology_id)
        by_name.setdefault(cell_type.name, set()).add((cell_type.cell_ontology_id, cell_type.broad))
    assert {name: found for name, found in by_name.items() if len(found) > 1} == {}


def test_an_ontology_id_has_one_broad_type() -> None:
    by_id: dict[str, set[str]] = {}
    for cell_type in cell_type_table().cell_types:
        if cell_type.cell_ontology_id and cell_type.broad:
            by_id.setdefault(cell_type.cell_ontology_id, set()).add(cell_type.broad)
    assert {name: found for name, found in by_id.items() if len(found) > 1} == {}


def test_a_label_is_found_by_its_source_then_by_the_meaning_that_all_sources_share() -> None:
    def cell_type(label: str, source: str, broad: str) -> CellType:
        return CellType(label, source, "", broad, broad, "")

    table = CellTypeTable(
        [cell_type("alpha", "a", "neuron"), cell_type("alpha", "b", "T cell"), cell_type("beta", "a", "B cell")]
    )
    found = table.find("alpha", "b")
    assert found is not None and found.broad == "T cell"
    assert table.find("alpha", "new") is None  # two meanings
    found = table.find("beta", "new")
    assert found is not None and found.broad == "B cell"
    assert table.find("gamma") is None


def test_labels_of_evaluation_sets_name_broad_types() -> None:
    accepted = evaluation_labels()
    assert accepted["pbmc3k"]["DC"] == {"dendritic cell", "plasmacytoid dendritic cell"}
    assert accepted["lungcl_sc_dropseq"]["H1975"] == frozenset()
    known = set(cell_type_table().broad_types)
    assert {broad for labels in accepted.values() for types in labels.values() for broad in types} <= known


@needs_data
@pytest.mark.parametrize("folder", ["train", "eval"])
def test_all_labels_of_the_data_are_listed(folder: str) -> None:
    missing = []
    for path in sorted((DATA / "cells" / folder).glob("*.h5ad")):
        with h5py.File(path) as file:
            column = file["obs"].get("cell_type")
            if column is None:
                continue
            stored = column["categories"] if isinstance(column, h5py.Group) else column
            labels = {label.decode() for label in stored[:]}
        known = (
            {c.label for c in cell_type_table().cell_types if c.source == path.stem}
            if folder == "train"
            else set(evaluation_labels()[path.stem])
        )
        missing += [(path.stem, label) for label in sorted(labels - known)]
    assert missing == []


@needs_data
@pytest.mark.parametrize("stem", PROFILES)
def test_all_columns_of_the_profiles_are_listed(stem: str) -> None:
    columns = set(pq.read_schema(DATA / "profiles" / f"{stem}.parquet").names) - {"symbol", "__index_level_0__"}
    assert columns - {c.label for c in cell_type_table().cell_types if c.source == stem} == set()


def test_a_label_of_a_new_source_can_be_a_common_name_in_any_case() -> None:
    found = cell_type_table().find("T Cell", "my_file")
    assert found is not None and (found.broad, found.label, found.source) == ("T cell", "T Cell", "my_file")
    named = cell_type_table().find("Plasmablast", "my_file")
    assert named is not None and (named.broad, named.cell_ontology_id) == ("plasma cell", "CL:0000980")
    assert cell_type_table().find("cluster 7", "my_file") is None
