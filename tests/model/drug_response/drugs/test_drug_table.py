from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import MAX_DRUGS, DrugTable
from scpalm.model.errors import BundleError, InputError

ASPIRIN = Drug("Aspirin", "CC(=O)Oc1ccccc1C(=O)O", 2244, "PTGS1", "Other", ("ASA",), known=True, in_training=True)
SALT = Drug("Cis-platin", "N.N.[Cl-].[Cl-].[Pt+2]", 84691, known=True, in_training=True)
TAKEN = Drug("ASA", "CCO", 7, known=True)  # its name is a synonym of the other drug


@pytest.fixture
def table() -> DrugTable:
    return DrugTable([ASPIRIN, SALT])


@pytest.mark.parametrize(
    "asked", ["aspirin", " ASPIRIN ", "asa", "2244", "CID2244", "cid: 2244", "O=C(C)Oc1ccccc1C(=O)O"]
)
def test_a_known_drug_is_found_by_name_synonym_id_and_any_smiles(table: DrugTable, asked: str) -> None:
    assert table.find(asked) is ASPIRIN


@pytest.mark.parametrize("asked", ["cisplatin", "CIS PLATIN", "N.N.[Cl-].[Cl-].[Pt+2]"])
def test_spaces_and_hyphens_do_not_matter_and_known_salts_are_found(table: DrugTable, asked: str) -> None:
    assert table.find(asked) is SALT
    assert SALT.graph.num_atoms == 5


def test_a_name_takes_precedence_over_a_synonym() -> None:
    assert DrugTable([ASPIRIN, TAKEN]).find("asa") is TAKEN


def test_other_smiles_is_a_new_drug(table: DrugTable) -> None:
    drug = table.find("Cn1cnc2c1c(=O)n(C)c(=O)n2C")
    assert not drug.known and not drug.in_training and drug.pubchem_id is None


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("", "empty-drug"),
        ("aspirine", "unknown-drug"),
        ("vitamin C", "unknown-drug"),
        ("99999", "unknown-drug"),
        ("9" * 400, "unknown-drug"),
        ("CID", "unknown-drug"),
        ("²", "unknown-drug"),
        ("C(C", "bad-smiles"),
        ("[Na+].[Cl-]", "salt"),
        ("CC(C)(C)(C)C", "impossible-molecule"),
    ],
)
def test_text_that_is_not_a_drug_is_refused(table: DrugTable, asked: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        table.find(asked)
    assert caught.value.code == code and caught.value.field == "drugs"
    assert len(str(caught.value)) < 400


def test_default_is_all_training_drugs(table: DrugTable) -> None:
    assert DrugTable([*table.drugs, TAKEN]).resolve([]) == [ASPIRIN, SALT]
    with pytest.raises(InputError, match="several requests"):
        table.resolve(["aspirin"] * (MAX_DRUGS + 1))


def test_round_trip(table: DrugTable, tmp_path: Path) -> None:
    table.save(tmp_path / "drugs.parquet")
    assert DrugTable.load(tmp_path / "drugs.parquet").drugs == table.drugs


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drugs.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(BundleError, match="not a table of drugs"):
        DrugTable.load(path)
    pq.write_table(pa.table({"name": ["a"]}), path)
    with pytest.raises(BundleError, match="not a table of drugs"):
        DrugTable.load(path)
