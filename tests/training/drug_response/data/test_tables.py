from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.model.drug_response.drugs.structures import DOUBTS
from scpalm.training.drug_response.data.tables import TablesError, load_tables
from tests.training.drug_response.small import Small
from tests.training.drug_response.small_tables import write_tables


def test_profiles_are_found_by_line(small: Small) -> None:
    """The files have the lines in different orders."""
    for name, column in (("mutation", "C"), ("methylation", "site2")):
        table = pd.read_parquet(small.folder / f"{name}.parquet").set_index("depmap_id")
        assert table.index.tolist() != small.tables.lines.tolist()
        values = getattr(small.tables, name)[:, getattr(small.tables, f"{name}_names").index(column)]
        np.testing.assert_array_equal(values, table.loc[small.tables.lines, column])
    response = pd.read_parquet(small.folder / "response.parquet")
    assert (small.tables.lines[small.tables.line_of] == response.depmap_id).all()
    ids = np.array([drug.pubchem_id for drug in small.tables.drugs])
    assert (ids[small.tables.drug_of] == response.pubchem_id).all()


def _drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=column)


def _set(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[table.index[2], column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("response", _drop("ln_ic50"), "no column 'ln_ic50'"),
        ("response", _set("ln_ic50", np.inf), "ln_ic50 of row 2 is inf"),
        ("response", _set("depmap_id", "ACH-x"), "depmap_id 'ACH-x'"),
        ("response", _set("pubchem_id", 5), "pubchem_id '5'"),
        ("expression", _set("GENE3", np.nan), "'GENE3' of line 'ACH-000002' is not finite"),
        ("expression", lambda table: pd.concat([table, table[:1]]), "line 'ACH-000000' has two rows"),
        ("mutation", lambda table: table[:-1], "lacks line"),
        ("drugs", lambda table: pd.concat([table, table[:1]]), "'100' twice"),
        ("drugs", _drop("smiles"), "no column 'smiles'"),
        ("methylation", None, "cannot be read"),
    ],
)
def test_inconsistent_tables_are_named(
    small: Small, tmp_path: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame] | None, expected: str
) -> None:
    folder = shutil.copytree(small.folder, tmp_path / "data")
    path = folder / f"{name}.parquet"
    if change is None:
        path.write_bytes(b"PAR1 broken")
    else:
        change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(TablesError, match=expected) as caught:
        load_tables(folder)
    assert name in str(caught.value) or name == "drugs"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TablesError, match="not a folder"):
        load_tables(tmp_path / "nowhere")


def test_without_the_embedding_of_scfoundation_the_rest_loads(small: Small, tmp_path: Path) -> None:
    folder = shutil.copytree(small.folder, tmp_path / "data")
    (folder / "scfoundation_embedding.parquet").unlink()
    assert load_tables(folder).scfoundation is None


def test_checked_structures_correct_drugs_and_leave_out_what_has_none(tmp_path: Path) -> None:
    """Rapamycin gets its own structure, Cetuximab trains no encoder; the rows stay."""
    folder = write_tables(tmp_path / "data", [f"GENE{i}" for i in range(30)])
    drugs, response = pd.read_parquet(folder / "drugs.parquet"), pd.read_parquet(folder / "response.parquet")
    for row, (pubchem_id, doubt) in enumerate((i, DOUBTS[i]) for i in (5384616, 85668777)):
        response["pubchem_id"] = response["pubchem_id"].replace(drugs.loc[row, "pubchem_id"], pubchem_id)
        drugs.loc[row, ["pubchem_id", "smiles"]] = [pubchem_id, doubt.published]
    drugs.to_parquet(folder / "drugs.parquet")
    response.to_parquet(folder / "response.parquet")
    checked, published = load_tables(folder), load_tables(folder, structures="published")
    rows = np.arange(checked.num_rows)
    assert checked.drugs[0].smiles == DOUBTS[5384616].true_smiles and checked.drugs[0].doubt is None
    assert published.drugs[0].smiles == DOUBTS[5384616].published
    assert set(published.encoder_drugs(rows)) - set(checked.encoder_drugs(rows)) == {1}
    np.testing.assert_array_equal(checked.drug_of, published.drug_of)
