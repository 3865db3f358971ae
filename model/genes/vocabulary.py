"""Gene vocabulary: looks genes up by Ensembl id, symbol, previous symbol or alias, without network access."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from scpalm.model.errors import BundleError

# Version, second copy on the Y chromosome, and the number of a lift to another assembly: ENSG00000169100.14_PAR_Y.
HUMAN_ID = re.compile(r"(ENSG(?:\d{11}|R\d{10}))(?:[._][\w.]*)?\Z")

How = Literal["ensembl", "symbol", "previous", "alias", ""]
NOT_FOUND: tuple[int, How] = (-1, "")


class Vocabulary:
    """G genes in a fixed order.

    The current symbol of a gene always means that gene, a previous symbol comes before an alias, and a name of two
    genes on the same level means neither; see `candidates`.

    Args:
        ensembl_ids, symbols: ``[G]`` names of the genes.
        aliases: other names of each gene.
        previous: symbols that each gene had before.
    """

    def __init__(
        self,
        ensembl_ids: Sequence[str],
        symbols: Sequence[str],
        aliases: Sequence[Sequence[str]],
        previous: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.ensembl_ids = list(ensembl_ids)
        self.symbols = list(symbols)
        self.aliases = [list(names) for names in aliases]
        self.previous = [list(names) for names in previous] if previous is not None else [[] for _ in self.symbols]
        self.by_ensembl: Mapping[str, int] = {name: position for position, name in enumerate(self.ensembl_ids)}
        self.by_symbol: Mapping[str, int] = {name: position for position, name in enumerate(self.symbols)}
        self._previous_owners = _owners(self.previous)
        self._alias_owners = _owners(self.aliases)
        others: dict[str, tuple[int, How]] = {}
        levels: tuple[tuple[How, Mapping[str, tuple[int, ...]]], ...] = (
            ("alias", self._alias_owners),
            ("previous", self._previous_owners),
        )
        for how, owners in levels:
            for name, genes in owners.items():
                others[name] = (genes[0], how) if len(genes) == 1 else NOT_FOUND
        self._others = {name: found for name, found in others.items() if name not in self.by_symbol}

    def __len__(self) -> int:
        return len(self.ensembl_ids)

    @classmethod
    def load(cls, path: Path | str) -> Vocabulary:
        """Read ``genes.parquet``. Raises BundleError if it is unreadable or lacks a column."""
        try:
            table = pq.read_table(path)
            ensembl, symbol = (table.column(name).to_pylist() for name in ("ensembl_id", "symbol"))
            # Tables written before release 0.2 have previous symbols among the aliases.
            aliases, previous = (
                _split(table.column(name).to_pylist()) if name in table.column_names or name == "aliases" else None
                for name in ("aliases", "previous")
            )
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise BundleError(f"{path} is not a gene table ({error}). Export the bundle again.") from error
        return cls(ensembl, symbol, aliases or [], previous)

    def save(self, path: Path | str) -> None:
        """Write ``genes.parquet``: ensembl_id, symbol, previous, aliases (each joined by '|'), in vocabulary order."""
        columns = {
            "ensembl_id": self.ensembl_ids,
            "symbol": self.symbols,
            "previous": ["|".join(names) for names in self.previous],
            "aliases": ["|".join(names) for names in self.aliases],
        }
        pq.write_table(pa.table(columns), path, compression="zstd")

    def find(self, name: str) -> tuple[int, How]:
        """Position of a gene and how its name was found, or (-1, "").

        Example:
            >>> vocabulary.find("ENSG00000167286.9")
            (4711, 'ensembl')
        """
        name = name.strip()
        if name in self.by_symbol:
            return self.by_symbol[name], "symbol"
        found = self.find_id(name)
        return (found, "ensembl") if found >= 0 else self._others.get(name, NOT_FOUND)

    def find_id(self, name: str) -> int:
        """Position of an Ensembl gene id, with or without version or ``_PAR_Y``, or -1."""
        position = self.by_ensembl.get(name, -1)
        if position < 0 and name.startswith("ENSG"):
            match = HUMAN_ID.match(name)
            if match:
                # GENCODE once numbered copies on the Y chromosome ENSGR...
                return self.by_ensembl.get(match[1].replace("ENSGR", "ENSG0"), -1)
        return position

    def candidates(self, name: str) -> tuple[int, ...]:
        """All genes that had the symbol ``name``; if there are none, all that have it as an alias."""
        return self._previous_owners.get(name) or self._alias_owners.get(name, ())

    @cached_property
    def by_folded(self) -> Mapping[str, str]:
        """Names with small letters (``C1orf56``) by the same in capitals; symbols before other names."""
        folded: dict[str, str] = {}
        for names in (*self.aliases, *self.previous, self.symbols):
            folded |= {name.upper(): name for name in names if name != name.upper()}
        return folded


def _owners(names: Sequence[Sequence[str]]) -> dict[str, tuple[int, ...]]:
    owners: dict[str, list[int]] = defaultdict(list)
    for position, of_gene in enumerate(names):
        for name in dict.fromkeys(of_gene):
            owners[name].append(position)
    return {name: tuple(genes) for name, genes in owners.items()}


def _split(texts: list[str]) -> list[list[str]]:
    return [text.split("|") if text else [] for text in texts]
