"""Choose labelled and simulated cells of a corpus for the reference, embed them, and fit their centroids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.annotation.bundled import Entry
from scpalm.model.annotation.discriminant import Discriminant
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.errors import InputError
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.io.labels import Categories
from scpalm.training.cell_types.table import CellType, CellTypeTable, cell_type_table
from scpalm.training.corpus.reader import Corpus

_EMBEDDED_AT_ONCE = 1024


@dataclass(frozen=True)
class ReferenceOptions:
    """Size of the reference.

    Attributes:
        max_cells: cells to keep, for distances. max_of_label: most cells of one label of a data set that are used.
        seed: of the choice of cells.
    """

    max_cells: int = 1500
    max_of_label: int = 25
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CorpusCells:
    """Chosen cells of a corpus.

    Attributes:
        rows: ``[R]`` positions in the corpus.
        cell_types: ``[R]`` what each cell is; the broad type may be empty.
        sources: ``[R]`` data set or profile file.
        simulated: ``[R]``.
    """

    rows: NDArray[np.int64]
    cell_types: list[CellType]
    sources: NDArray[np.object_]
    simulated: NDArray[np.bool_]

    @property
    def broad(self) -> NDArray[np.object_]:
        """``[R]`` broad type, "" for none."""
        return np.array([cell_type.broad for cell_type in self.cell_types], dtype=object)

    def labels_outside(self, table: CellTypeTable) -> list[str]:
        """Labels that the table does not know, sorted."""
        pairs = {(found.label, found.source) for found in self.cell_types}
        return sorted({label for label, source in pairs if table.find(label, source) is None})

    def select(self, positions: NDArray[np.int64]) -> CorpusCells:
        """The cells at ``positions``."""
        return CorpusCells(
            self.rows[positions],
            [self.cell_types[at] for at in positions],
            self.sources[positions],
            self.simulated[positions],
        )


def labelled_cells(corpus: Corpus, max_of_label: int, seed: int) -> CorpusCells:
    """Cells with a label, at most ``max_of_label`` of each label and data set, in random order within a label.

    A label that is not in the table of cell types becomes a new type with that name. Raises InputError without labels.
    """
    obs = corpus.obs
    simulated = obs["simulated"].to_numpy(bool) if "simulated" in obs else np.zeros(len(obs), bool)
    random = np.random.default_rng(seed)
    labelled = obs.assign(row=np.arange(len(obs)), simulated=simulated)[obs["cell_type"] != ""]
    rows: list[NDArray[np.int64]] = []
    for _, group in labelled.groupby(["dataset", "cell_type"], sort=True):
        rows.append(random.permutation(group["row"].to_numpy(np.int64))[:max_of_label])
    if not rows:
        raise InputError(
            "no-labels",
            f"No cell of {corpus.path} has a label.",
            hint="Build the corpus from files with obs.cell_type.",
        )
    chosen = np.concatenate(rows)
    table = cell_type_table()
    found = [_find(table, label, source) for label, source in _pairs(obs, chosen)]
    return CorpusCells(chosen, found, obs["dataset"].to_numpy(object)[chosen], simulated[chosen])


def _pairs(obs: pd.DataFrame, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
    part = obs.iloc[rows]
    return list(zip(part["cell_type"].astype(str), part["dataset"].astype(str), strict=True))


def _find(table: CellTypeTable, label: str, source: str) -> CellType:
    """What the table says, or, for a label that it lacks, a type of that name."""
    return table.find(label, source) or CellType(label, source, "", label, label, "")


def balanced(cells: CorpusCells, num_cells: int) -> NDArray[np.int64]:
    """Positions of at most ``num_cells`` cells with a broad type, ascending.

    Broad types get equal shares, and within one, so do its labels and sources. What a small one leaves goes to the
    others.
    """
    broad = cells.broad
    types = sorted(set(broad) - {""})
    of_type = {name: np.flatnonzero(broad == name) for name in types}
    shares = _equal_shares([len(of_type[name]) for name in types], num_cells)
    chosen = [np.zeros(0, np.int64)]
    for name, share in zip(types, shares, strict=True):
        groups: dict[tuple[str, str], list[int]] = {}
        for at in of_type[name]:
            groups.setdefault((str(cells.sources[at]), cells.cell_types[at].label), []).append(int(at))
        sizes = _equal_shares([len(group) for group in groups.values()], share)
        chosen += [np.array(group[:size], np.int64) for group, size in zip(groups.values(), sizes, strict=True)]
    return np.sort(np.concatenate(chosen))


def _equal_shares(available: list[int], total: int) -> list[int]:
    """Split ``total`` as evenly as what is available allows; earlier ones get the remainder."""
    shares = [0] * len(available)
    left = min(total, sum(available))
    while left > 0:
        open_ = [at for at, size in enumerate(available) if shares[at] < size]
        step = max(1, left // len(open_))
        for at in open_:
            more = min(step, available[at] - shares[at], left)
            shares[at] += more
            left -= more
    return shares


def embed(corpus: Corpus, bundle: Bundle, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The bundle's embedding of rows of the corpus ``[R, D]``.

    Raises:
        ValueError: the corpus and the bundle have different genes.
    """
    if corpus.vocabulary.ensembl_ids != bundle.vocabulary.ensembl_ids:
        raise ValueError(f"{corpus.path} and {bundle.path} have different genes. Name the corpus it was trained on.")
    session = open_runtime(bundle)
    gene_sets: dict[bytes, GeneSet] = {}
    parts = []
    for start in range(0, len(rows), _EMBEDDED_AT_ONCE):
        chosen = _rows(corpus, rows[start : start + _EMBEDDED_AT_ONCE], gene_sets)
        parts.append(session.encode(chosen, tokens=False).embedding)
    return np.concatenate(parts)


def _rows(corpus: Corpus, rows: NDArray[np.int64], gene_sets: dict[bytes, GeneSet]) -> Rows:
    batch = corpus.batch(rows)
    measured = np.broadcast_to(batch.measured.numpy().astype(bool), (len(rows), corpus.num_genes))
    numbers: dict[bytes, int] = {}
    owners = [numbers.setdefault(genes.tobytes(), len(numbers)) for genes in measured]
    sets = tuple(gene_sets.setdefault(key, GeneSet(np.frombuffer(key, dtype=bool))) for key in numbers)
    return Rows(
        np.append(batch.offsets.numpy(), len(batch.value)).astype(np.int64),
        batch.gene_index.numpy().astype(np.int32),
        batch.value.numpy().astype(np.float32),
        sets,
        np.array(owners, np.int32),
    )


def entries_of(cells: CorpusCells) -> tuple[tuple[Entry, ...], NDArray[np.int32]]:
    """The labels of all sources, and which one each cell has ``[R]``."""
    entries: dict[Entry, int] = {}
    codes = []
    for cell_type, source in zip(cells.cell_types, cells.sources, strict=True):
        entry = Entry(
            cell_type.label,
            cell_type.name,
            cell_type.broad,
            cell_type.cell_ontology_id,
            cell_type.tissue,
            str(source),
        )
        codes.append(entries.setdefault(entry, len(entries)))
    return tuple(entries), np.array(codes, np.int32)


def fit(cells: CorpusCells, array: NDArray[np.floating]) -> tuple[tuple[str, ...], Discriminant, tuple[Entry, ...]]:
    """The names of the broad types, their discriminant, and its groups: the entries.

    ``cells`` have broad types. ``array``: their embedding ``[R, D]``.
    """
    labels = Categories.of(list(cells.broad))
    entries, groups = entries_of(cells)
    return labels.names, Discriminant.fit(array, labels.codes, groups), entries
