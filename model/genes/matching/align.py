"""Match the columns of a file with the model's genes: which are genes, and which gene is each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.alignment import Alignment, Coverage
from scpalm.model.genes.matching.blocks import blocks, ends, refuse_proteins, viral_columns
from scpalm.model.genes.matching.chosen_names import choose_names
from scpalm.model.genes.matching.non_genes import foreign_genomes, kind_reasons, name_reason
from scpalm.model.genes.matching.other_names import few_known, other_species, refuse_contradiction
from scpalm.model.genes.matching.repair import (
    NO_NAMES,
    Repairs,
    is_clone,
    is_date,
    is_foreign,
    refuse_merged_tables,
    stem_of,
    with_dashes,
)
from scpalm.model.genes.rows import GeneSet
from scpalm.model.genes.vocabulary import How, Vocabulary

_SHORTEST_ALIAS = 2
# Files of several annotations have old and new symbols of many genes. A few pairs are rather reporters or antibodies.
_MERGED_ANNOTATIONS = 100
_FEW_REPEATED = 3
_NEVER_GENES = ("reporter", "antibody", "control probe")


def align(vocabulary: Vocabulary, columns: GeneColumns) -> Alignment:
    """Find the gene of each column.

    The order is: Ensembl id, symbol, previous symbol, alias, then the name with repairs (`Repairs`). Columns that are
    certainly no human genes are left out.

    Raises InputError if too few genes are known, if ids and names contradict each other, or if the names are those of
    another species.
    """
    return _Aligner(vocabulary, columns).align()


class _Aligner:
    def __init__(self, vocabulary: Vocabulary, columns: GeneColumns) -> None:
        self._vocabulary = vocabulary
        self._columns = columns
        self._repaired: Counter[str] = Counter()
        self._reasons: dict[int, str] = {}
        chosen = choose_names(vocabulary, columns)
        self._names, self._names_from = chosen.names, chosen.names_from
        self._notes = list(chosen.notes)
        self._target = np.full(len(columns), -1, dtype=np.int32)
        self._how: list[How] = [""] * len(columns)

    def align(self) -> Alignment:
        refuse_merged_tables(self._names)
        self._leave_out_by_type()
        ids = self._columns.ensembl_ids
        for column, name in enumerate(self._names):
            if column not in self._reasons:
                self._set(column, *self._find(column, name, ids))
        refuse_contradiction(self._vocabulary, self._names, ids)
        other_species(self._vocabulary, self._columns, self._names, self._matched())
        self._settle_shared_ids(ids)
        self._repair()
        self._leave_out_blocks()
        self._drop_other_names()
        matched = self._matched()
        few_known(self._vocabulary, self._columns, self._names, matched, len(self._reasons))
        measured = np.zeros(len(self._vocabulary), dtype=bool)
        measured[self._target[self._target >= 0]] = True
        left_out = np.zeros(len(self._columns), dtype=bool)
        left_out[list(self._reasons)] = True
        unmatched = [str(self._names[c]) for c in np.flatnonzero((self._target < 0) & ~left_out)[:20]]
        found = Counter(self._how)
        coverage = Coverage(
            genes_in=len(self._columns),
            genes_matched=matched,
            genes_of_model=int(measured.sum()),
            by_symbol=found["symbol"],
            by_ensembl=found["ensembl"],
            by_alias=found["alias"] + found["previous"],
            repaired=dict(sorted(self._repaired.items())),
            left_out=dict(sorted(Counter(self._reasons.values()).items())),
            unmatched=tuple(unmatched),
            notes=tuple(self._notes),
        )
        runs = [] if self._columns.kinds is not None else ends(self._repeated())
        repeated = next((tuple(run) for run in runs if len(run) >= _FEW_REPEATED), ())
        return Alignment(self._target, left_out, coverage, GeneSet(measured), self._names_from, repeated)

    def _matched(self) -> int:
        return int((self._target >= 0).sum())

    def _set(self, column: int, position: int, how: How) -> None:
        self._target[column] = position
        self._how[column] = how if position >= 0 else ""

    def _find(self, column: int, name: str, ids: Sequence[str] | None) -> tuple[int, How]:
        if ids is not None:
            position = self._vocabulary.find_id(ids[column])
            if position >= 0:
                return position, "ensembl"
        if name.upper() in NO_NAMES:
            return -1, ""
        position, how = self._vocabulary.find(name)
        if how == "alias" and len(name) <= _SHORTEST_ALIAS:
            return -1, ""  # Y, QC, MT: of anything
        if how in ("previous", "alias"):
            # NKX6.1 is what R makes of NKX6-1, and an alias of NKX6-2.
            symbol = next((meant for meant in with_dashes(name) if meant in self._vocabulary.by_symbol), None)
            if symbol is not None:
                return self._vocabulary.by_symbol[symbol], "symbol"
        return position, how

    # --- columns that are no genes

    def _leave_out_by_type(self) -> None:
        columns = self._columns
        if columns.kinds is not None:
            reasons = kind_reasons(columns.kinds)
            self._reasons |= {c: reasons[kind] for c, kind in enumerate(columns.kinds) if kind in reasons}
        if columns.genomes is not None:
            foreign = foreign_genomes(columns.genomes)
            self._reasons |= {c: "gene of another species" for c, g in enumerate(columns.genomes) if g in foreign}
        if columns.filtered is not None:
            self._reasons |= {int(c): "filtered (feature_is_filtered)" for c in np.flatnonzero(columns.filtered)}

    def _leave_out_by_name(self, column: int, name: str) -> bool:
        reason = "gene of another species" if is_foreign(name) else name_reason(name)
        if reason is None:
            return False
        self._reasons[column] = reason
        self._set(column, -1, "")
        return True

    def _leave_out_blocks(self) -> None:
        symbols = self._vocabulary.by_symbol
        doubtful = [column for column, how in enumerate(self._how) if how not in ("symbol", "ensembl")]
        found = dict.fromkeys(viral_columns(self._names, doubtful), "viral gene")
        if self._columns.kinds is None:
            refuse_proteins(self._names, symbols.__contains__)
            found |= blocks(self._names, self._target < 0, self._repeated(), symbols.__contains__)
        for column, reason in found.items():
            self._reasons.setdefault(column, reason)
            self._set(column, -1, "")

    def _repeated(self) -> NDArray[np.bool_]:
        """``[genes_in]`` bool: columns whose gene has another column."""
        counts = np.bincount(self._target[self._target >= 0], minlength=len(self._vocabulary))
        repeated: NDArray[np.bool_] = (self._target >= 0) & (counts[self._target] > 1)
        return repeated

    # --- names that need more than a look

    def _settle_shared_ids(self, ids: Sequence[str] | None) -> None:
        """Where columns share an id, one of them may have it by mistake: its name is a gene without a column."""
        if ids is None:
            return
        counts = np.bincount(self._target[self._target >= 0], minlength=len(self._vocabulary))
        for column in np.flatnonzero((self._target >= 0) & (counts[self._target] > 1)):
            position, how = self._vocabulary.find(self._names[column])
            if position >= 0 and position != self._target[column] and counts[position] == 0:
                self._set(int(column), position, how)

    def _repair(self) -> None:
        repairs = Repairs(self._vocabulary, self._names)
        unknown = self._to_repair(repairs)
        for column in unknown:
            name = self._names[column]
            position, how, kind = repairs.find(name)
            # Of an antibody's name, too, a part may be that of a gene.
            if position >= 0 and (kind != "part of the name" or name_reason(name) is None):
                self._set_repaired(column, position, how, kind)
        taken = set(self._target[self._target >= 0].tolist())
        dates = []
        for column in unknown:
            if self._target[column] >= 0:
                continue
            name = self._names[column]
            cores = repairs.cores(name)
            position, how, kind = self._by_neighbours(cores, taken)
            if position >= 0:
                self._set_repaired(column, position, how, kind)
            elif not any(self._leave_out_by_name(column, core) for core in (name, *cores)) and is_date(name):
                dates.append(name)
        for column in np.flatnonzero(self._target >= 0).tolist():
            # Names of reporters and antibodies are also other names of genes.
            if self._how[column] in ("alias", "previous") and name_reason(self._names[column]) in _NEVER_GENES:
                self._leave_out_by_name(column, self._names[column])
        if dates:
            self._notes.append(
                f"{len(dates)} gene name(s) are dates, as Excel makes of MARCH1 or SEPT9 (e.g. '{dates[0]}'), and "
                "could not be restored."
            )

    def _to_repair(self, repairs: Repairs) -> list[int]:
        unknown = [
            column
            for column in np.flatnonzero(self._target < 0).tolist()
            if column not in self._reasons and not is_clone(self._names[column])
        ]
        # PURG-A, the ambiguous counts of PURG, is also an alias; NCL-1, a second column of NCL, one of another gene.
        known = set(self._names)
        for column, how in enumerate(self._how):
            name = self._names[column]
            if how in ("alias", "previous") and (stem_of(name) in known or (repairs.unspliced and name[-2:-1] == "-")):
                unknown.append(column)
        return unknown

    def _set_repaired(self, column: int, position: int, how: How, kind: str) -> None:
        self._set(column, position, how)
        self._repaired[kind] += 1

    def _by_neighbours(self, names: Sequence[str], taken: set[int]) -> tuple[int, How, str]:
        """A symbol that several genes had: the only one of them without its own column."""
        for name in names:
            free = [gene for gene in self._vocabulary.candidates(name) if gene not in taken]
            previous = name.upper() not in NO_NAMES and any(name in self._vocabulary.previous[gene] for gene in free)
            if len(free) == 1 and previous:
                return free[0], "previous", "previous symbol"
        return -1, "", ""

    def _drop_other_names(self) -> None:
        """An alias or previous symbol is not added to a gene that has its own column."""
        firm = {int(self._target[c]) for c, how in enumerate(self._how) if how in ("symbol", "ensembl")}
        doubtful = [c for c, how in enumerate(self._how) if how in ("previous", "alias") and self._target[c] in firm]
        old = [c for c in doubtful if self._how[c] == "previous"]
        if len({int(self._target[c]) for c in old}) >= _MERGED_ANNOTATIONS:
            doubtful = [c for c in doubtful if self._how[c] == "alias"]
        # Of an alias and a previous symbol of the same gene, the previous symbol is the gene.
        previous = {int(self._target[c]) for c, how in enumerate(self._how) if how == "previous"}
        doubtful += [c for c, how in enumerate(self._how) if how == "alias" and int(self._target[c]) in previous]
        dropped = sorted(set(doubtful))
        for column in dropped:
            self._set(column, -1, "")
        if dropped:
            example = self._names[dropped[0]]
            self._notes.append(
                f"{len(dropped)} column(s), e.g. '{example}', have an alias or previous symbol of a gene that has "
                "its own column. Their values are not used."
            )
