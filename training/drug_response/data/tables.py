"""Read and check the drug-response data: responses, profiles of cell lines, and drugs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.molecules.graph import MoleculeGraph

Texts = NDArray[np.str_]
Structures = Literal["checked", "published"]


class TablesError(ValueError):
    """A table is missing or does not fit the others; the message names file and column."""


@dataclass(frozen=True, eq=False)
class Tables:
    """R responses of L lines to D drugs. Lines and drugs are numbered as in ``lines`` and ``drugs``.

    Attributes:
        lines: ``[L]`` DepMap ids. types: ``[L]`` TCGA type. drugs: D drugs.
        line_of, drug_of: ``[R]`` int64. ln_ic50: ``[R]`` float32, ln uM.
        published_split: ``[R]`` ``train``, ``test`` or ``unused``.
        published_base, published_scfoundation: ``[R]`` published predictions, ln uM, NaN where there are none.
        structures: ``checked`` or ``published``, see `load_tables`.
        genes: names of the expression columns. expression: ``[L, genes]`` log2(TPM + 1).
        mutation: ``[L, calls]`` 0, 1, -1 unknown. mutation_names, methylation_names: of the columns.
        methylation: ``[L, sites]`` in [0, 1], NaN where unknown. scfoundation: ``[L, 768]``, or None without the file.
    """

    lines: Texts
    types: Texts
    drugs: tuple[Drug, ...]
    line_of: NDArray[np.int64]
    drug_of: NDArray[np.int64]
    ln_ic50: NDArray[np.float32]
    published_split: Texts
    published_base: NDArray[np.float64]
    published_scfoundation: NDArray[np.float64]
    genes: list[str]
    expression: NDArray[np.float32]
    mutation_names: list[str]
    mutation: NDArray[np.int8]
    methylation_names: list[str]
    methylation: NDArray[np.float32]
    scfoundation: NDArray[np.float32] | None
    structures: Structures = "published"

    @property
    def num_rows(self) -> int:
        return len(self.ln_ic50)

    @cached_property
    def pair_of(self) -> NDArray[np.int64]:
        """``[R]`` number of the (line, drug) pair: some are measured under two GDSC ids."""
        return self.line_of * len(self.drugs) + self.drug_of

    @cached_property
    def graphs(self) -> list[MoleculeGraph]:
        return [drug.graph for drug in self.drugs]

    def encoder_drugs(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the drugs of these rows that the drug encoder may learn from.

        With ``checked`` structures, a drug without one is left out: its graph would be another compound's.
        """
        used = np.unique(self.drug_of[rows])
        if self.structures == "published":
            return used
        return used[[self.drugs[drug].doubt is None for drug in used]]


def load_tables(folder: Path, *, structures: Structures = "checked") -> Tables:
    """Read the parquet files of ``folder``.

    ``checked``: drugs whose published structure is another compound's get their own, and those that have none do not
    train the drug encoder; rows and splits stay the same. ``published``: the structures of DeepCDR's table as they are.

    Raises TablesError.
    """
    if not folder.is_dir():
        raise TablesError(f"{folder} is not a folder. Name the one that holds response.parquet.")
    response = _read(folder, "response", ["depmap_id", "pubchem_id", "ln_ic50", "tcga_type", "split_scf"])
    drugs = _read(folder, "drugs", ["pubchem_id", "name", "smiles", "targets", "target_pathway"])
    expression = _profiles(folder, "expression")
    lines = expression.index
    line_of = _number(response["depmap_id"], lines, "expression.parquet")
    drug_of = _number(response["pubchem_id"], pd.Index(drugs["pubchem_id"]), "drugs.parquet")
    ln_ic50 = response["ln_ic50"].to_numpy(dtype=np.float32)
    if not np.isfinite(ln_ic50).all():
        row = int(np.flatnonzero(~np.isfinite(ln_ic50))[0])
        raise TablesError(f"{folder}/response.parquet: ln_ic50 of row {row} is {ln_ic50[row]}. Remove such rows.")
    types = response.groupby(line_of)["tcga_type"].first().reindex(range(len(lines))).fillna("").astype(str)
    mutation, methylation = _profiles(folder, "mutation", lines), _profiles(folder, "methylation", lines)
    return Tables(
        lines=lines.to_numpy(dtype=str),
        types=types.to_numpy(dtype=str),
        drugs=tuple(
            _with_structure(
                Drug(str(d.name), str(d.smiles), int(d.pubchem_id), str(d.targets), str(d.target_pathway), known=True),
                structures,
            )
            for d in drugs.rename(columns=str).itertuples(index=False)
        ),
        structures=structures,
        line_of=line_of,
        drug_of=drug_of,
        ln_ic50=ln_ic50,
        published_split=response["split_scf"].fillna("unused").to_numpy(dtype=str),
        published_base=_optional(response, "pub_pred_base"),
        published_scfoundation=_optional(response, "pub_pred_scfoundation"),
        genes=[str(name) for name in expression.columns],
        expression=_finite(expression, folder / "expression.parquet"),
        mutation_names=[str(name) for name in mutation.columns],
        mutation=mutation.fillna(-1).to_numpy(dtype=np.int8),
        methylation_names=[str(name) for name in methylation.columns],
        methylation=methylation.to_numpy(dtype=np.float32),
        scfoundation=_scfoundation(folder, lines),
    )


def _with_structure(drug: Drug, structures: Structures) -> Drug:
    own = drug.doubt.true_smiles if drug.doubt else ""
    return replace(drug, smiles=own) if own and structures == "checked" else drug


def _read(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TablesError(f"{path} cannot be read ({error}).") from error
    for column in columns:
        if column not in table.columns:
            raise TablesError(f"{path} has no column '{column}'.")
    return table


def _profiles(folder: Path, name: str, lines: pd.Index | None = None) -> pd.DataFrame:
    """Numeric columns by ``depmap_id``, in the order of ``lines`` if given."""
    table = _read(folder, name, ["depmap_id"]).set_index("depmap_id").select_dtypes("number")
    path = folder / f"{name}.parquet"
    if not table.index.is_unique:
        raise TablesError(f"{path}: line '{table.index[table.index.duplicated()][0]}' has two rows.")
    if lines is None:
        return table
    if len(missing := lines.difference(table.index)):
        raise TablesError(f"{path} lacks line '{missing[0]}', which expression.parquet has.")
    return table.reindex(lines)


def _number(keys: pd.Series, known: pd.Index, where: str) -> NDArray[np.int64]:
    if not known.is_unique:
        raise TablesError(f"{where} has '{known[known.duplicated()][0]}' twice.")
    number = known.get_indexer(keys)
    if (number < 0).any():
        raise TablesError(f"response.parquet has {keys.name} '{keys[number < 0].iloc[0]}', which {where} lacks.")
    return number.astype(np.int64)


def _finite(table: pd.DataFrame, path: Path) -> NDArray[np.float32]:
    values = table.to_numpy(dtype=np.float32)
    line, column = np.nonzero(~np.isfinite(values))
    if len(line):
        raise TablesError(f"{path}: '{table.columns[column[0]]}' of line '{table.index[line[0]]}' is not finite.")
    return values


def _optional(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return table[column].to_numpy(dtype=np.float64) if column in table else np.full(len(table), np.nan)


def _scfoundation(folder: Path, lines: pd.Index) -> NDArray[np.float32] | None:
    if not (folder / "scfoundation_embedding.parquet").exists():
        return None
    table = _profiles(folder, "scfoundation_embedding", lines)
    # Only e0, e1, ...: the other columns describe the origin of a row.
    names = [name for name in table.columns if name[:1] == "e" and name[1:].isdigit()]
    return table[names].to_numpy(dtype=np.float32)
