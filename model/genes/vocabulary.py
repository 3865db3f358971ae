"""Gene vocabulary: looks genes up by Ensembl id, symbol, previous symbol or alias, without network access."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scpalm.model.errors import BundleError, InputError
from scpalm.model.genes.rows import GeneSet

_HUMAN_ID = re.compile(r"^ENSG\d{11}(\.\d+)?$")
_OTHER_SPECIES_ID = re.compile(r"^ENS[A-Z]{3,4}G\d{11}")
# With fewer known names than this, or a smaller share of them, a file uses other names; it is not just a small panel.
_FEW_GENES = 10
_FEW_SHARE = 0.02


@dataclass(frozen=True)
class Coverage:
    """How many of a file's genes the model knows, and by which name.

    Attributes:
        genes_in: columns of the file. genes_matched: columns found in the vocabulary.
        genes_of_model: different vocabulary genes found, at most ``genes_matched``.
        by_symbol, by_ensembl, by_alias: how the matched columns were found (alias includes previous symbols).
        unmatched: the first 20 names that were not found.
    """

    genes_in: int
    genes_matched: int
    genes_of_model: int
    by_symbol: int
    by_ensembl: int
    by_alias: int
    unmatched: tuple[str, ...]

    def as_dict(self) -> dict[str, int | tuple[str, ...]]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Alignment:
    """A file's columns in the vocabulary.

    Attributes:
        target: ``[genes_in]`` int32, vocabulary position of each column, -1 where unknown.
        coverage: the report for the user.
        gene_set: the vocabulary genes that the file measured.
    """

    target: NDArray[np.int32]
    coverage: Coverage
    gene_set: GeneSet


class Vocabulary:
    """G genes in a fixed order.

    An alias (or previous symbol) of more than one gene is ambiguous and matches nothing. The current symbol of a gene
    always means that gene, even if it is also an alias of another one.
    """

    def __init__(self, ensembl_ids: Sequence[str], symbols: Sequence[str], aliases: Sequence[Sequence[str]]) -> None:
        self.ensembl_ids = list(ensembl_ids)
        self.symbols = list(symbols)
        self.aliases = [list(names) for names in aliases]
        self._by_ensembl = {name: position for position, name in enumerate(self.ensembl_ids)}
        self._by_symbol = {name: position for position, name in enumerate(self.symbols)}
        owners: dict[str, int] = {}
        for position, names in enumerate(self.aliases):
            for name in names:
                owners[name] = position if owners.get(name, position) == position else -1
        self._by_alias = {name: p for name, p in owners.items() if p >= 0 and name not in self._by_symbol}

    def __len__(self) -> int:
        return len(self.ensembl_ids)

    @classmethod
    def load(cls, path: Path | str) -> Vocabulary:
        """Read ``genes.parquet``. Raises BundleError if it is unreadable or lacks a column."""
        try:
            table = pq.read_table(path, columns=["ensembl_id", "symbol", "aliases"])
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise BundleError(f"{path} is not a gene table ({error}). Export the bundle again.") from error
        ensembl, symbol, aliases = (table.column(i).to_pylist() for i in range(3))
        return cls(ensembl, symbol, [names.split("|") if names else [] for names in aliases])

    def save(self, path: Path | str) -> None:
        """Write ``genes.parquet``: ensembl_id, symbol, aliases (joined by '|'), in vocabulary order."""
        columns = {
            "ensembl_id": self.ensembl_ids,
            "symbol": self.symbols,
            "aliases": ["|".join(names) for names in self.aliases],
        }
        pq.write_table(pa.table(columns), path, compression="zstd")

    def find(self, name: str) -> tuple[int, str]:
        """Position of a gene and how its name was found (``ensembl``, ``symbol`` or ``alias``), or (-1, "")."""
        name = name.strip()
        if _HUMAN_ID.match(name):
            return self._by_ensembl.get(name.partition(".")[0], -1), "ensembl"
        for table, how in ((self._by_symbol, "symbol"), (self._by_alias, "alias")):
            if name in table:
                return table[name], how
        return self._find_made_unique(name)

    def _find_made_unique(self, name: str) -> tuple[int, str]:
        # anndata's var_names_make_unique turns a repeated symbol into SYMBOL-1, SYMBOL-2 and so on.
        stem, dash, number = name.rpartition("-")
        if dash and number.isdigit() and stem in self._by_symbol:
            return self._by_symbol[stem], "alias"
        return -1, ""

    def align(self, genes: Sequence[str], ensembl_ids: Sequence[str] | None = None) -> Alignment:
        """Find each column by its Ensembl id if that is known, else by its name.

        Raises InputError if no gene or too few genes are known, or if the names are those of another species.
        """
        target = np.full(len(genes), -1, dtype=np.int32)
        found = {"ensembl": 0, "symbol": 0, "alias": 0}
        unmatched: list[str] = []
        for column, name in enumerate(genes):
            position, how = self.find(ensembl_ids[column]) if ensembl_ids is not None else (-1, "")
            if position < 0:
                position, how = self.find(str(name))
            if position >= 0:
                target[column] = position
                found[how] += 1
            elif len(unmatched) < 20:
                unmatched.append(str(name))
        matched = sum(found.values())
        self._check_matches(genes, ensembl_ids, matched)
        measured = np.zeros(len(self), dtype=bool)
        measured[target[target >= 0]] = True
        coverage = Coverage(
            genes_in=len(genes),
            genes_matched=matched,
            genes_of_model=int(measured.sum()),
            by_symbol=found["symbol"],
            by_ensembl=found["ensembl"],
            by_alias=found["alias"],
            unmatched=tuple(unmatched),
        )
        return Alignment(target, coverage, GeneSet(measured))

    def _check_matches(self, genes: Sequence[str], ensembl_ids: Sequence[str] | None, matched: int) -> None:
        few = (matched < _FEW_GENES and 2 * matched < len(genes)) or matched < _FEW_SHARE * len(genes)
        if not few and 4 * matched >= len(genes):
            return
        foreign = sum(bool(_OTHER_SPECIES_ID.match(str(name))) for name in (*genes, *(ensembl_ids or ())))
        # Mouse symbols are the human ones in title case.
        title_case = sum(str(name) not in self._by_symbol and str(name).upper() in self._by_symbol for name in genes)
        example = next((str(name) for name in genes if self.find(str(name))[0] < 0), "")
        if 2 * foreign > len(genes) or (title_case > matched and 10 * title_case >= len(genes)):
            raise InputError(
                "wrong-species",
                f"The gene names look like those of another species, e.g. '{example}'; "
                f"only {matched} of {len(genes)} are human.",
                hint="The model knows human genes only: map the names to human orthologues (HGNC symbols or ENSG ids).",
                field="genes",
                gene=example,
            )
        if few:
            raise InputError(
                "no-known-gene" if matched == 0 else "too-few-genes",
                f"The model knows {matched} of the {len(genes)} gene names; unknown is, for example, '{example}'.",
                hint="Name the genes by HGNC symbol or Ensembl gene id (ENSG...).",
                field="genes",
                gene=example,
            )
