"""Columns that several names together show to be no genes: antibodies and guides named like genes, genes of viruses.

Files without a column of feature types have them next to the genes. A single name is no evidence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix

# Surface proteins by names that annotations of genes do not use. A number at the end may only make a name unique.
_PROTEIN = re.compile(
    r"CD\d{1,3}[A-Za-z]{0,2}(?:[-_./ (](?!\d{1,2}\Z|AS\d)\S.*)?|(?:rat|mouse|hu)?[-_ ]?Ig[GMDA]\d?(?:\w*|[-_. ].*)|"
    r"HLA[-_. ]?(?:DR|ABC|A[-_.,]B[-_.,]C)(?:[-_. ].*)?|PD[-_]?L?1|TCR[-_ .]?(?:ab|gd|alpha|beta|gamma|delta|V).*"
)
# Guides that target nothing, guides with their sequence, and those numbered g1, g2.
_GUIDE = re.compile(
    r"(?i:(?:NT|NTC|non[-_ .]?target\w*|ctrl|control|scramble\w*|safe\w*|AAVS1|neg\w*|intergenic)[-_. ]?(?:sg|g)?\d+)|"
    r"\S+[-_.][ACGT]{17,23}(?:[-_.]\S*)?|\S+(?:[-_.]s?|[A-Z\d])g\d{1,2}"
)
_SEQUENCE = re.compile(r"\S+[-_.][ACGT]{17,23}(?:[-_.]\S*)?")
_SHORTEST_SEQUENCE = 18
_NUMBER = re.compile(r"(.+?)[-._]\d{1,2}\Z")

# Names of the genes of a virus, as its annotations have them.
_VIRUSES = tuple(
    re.compile(pattern)
    for pattern in (
        r"PB[12](?:-F2)?|PA(?:-X)?|H[AE]|NP|NA|NB|BM2|M[12]?|NS[12]?|NEP",
        r"(?:ORF|orf)(?:1ab|1a|1b|3[abcd]|6|7[ab]|8|9[bc]|10|14)|[SEMN]|Spike|nsp\d+",
        r"(?i:gag(?:-?pol)?|pol|env|tat|rev|nef|vif|vpr|vpu|vpx)",
        r"EBNA-?\d[ABC]?|EBNA-?LP|LMP-?\d[AB]?|EBER-?[12]|RPMS1|A73|B[A-Z][LR]F\d[ab]?\d?|BARF[01]|BHLF1",
        r"E[1-7](?:_?\^?E4)?|L[12]|URR",
        r"HBV?[-_ ]?[CSXPx]|HBx|[PXCS]|pre-?[CS]\d?|PreCore",
        r"(?:UL|US|RL|TRL|IRS|TRS)\d{1,3}[A-Z]?|ORF\d{1,2}|[Kk]\d{1,2}(?:\.\d)?|vIRF-?\d|LANA",
    )
)
_ANY_VIRUS = re.compile("|".join(f"(?:{virus.pattern})" for virus in _VIRUSES))
_FEW_VIRAL = 4

_FEW_ANCHORS, _ANCHOR_SHARE, _FEW_COLUMNS, _MOST_COLUMNS = 2, 0.2, 3, 500
_ALL_PROTEINS = 0.3
_OUTWEIGHED, _SOME_COUNTS = 5.0, 0.01


def is_protein(name: str) -> bool:
    """Whether this is the name of a surface protein, as antibodies have it: ``CD45RA``, ``HLA-DR``."""
    return _PROTEIN.fullmatch(name) is not None


def viral_columns(names: Sequence[str], doubtful: Sequence[int]) -> list[int]:
    """The columns of a virus of which there are several genes.

    Args:
        names: of all columns.
        doubtful: columns whose names are not the symbols of human genes.
    """
    short = [column for column in doubtful if len(names[column]) <= 8 and _ANY_VIRUS.fullmatch(names[column])]
    found: set[int] = set()
    for virus in _VIRUSES if len(short) >= _FEW_VIRAL else ():
        columns = [column for column in short if virus.fullmatch(names[column])]
        if len({names[column] for column in columns}) >= _FEW_VIRAL:
            found.update(columns)
            # TAT is a gene of HIV and one of humans: the second column of that name is the virus's.
            last = {name: column for column, name in enumerate(names) if virus.fullmatch(name)}
            first = {name: column for column, name in reversed([*enumerate(names)]) if name in last}
            found.update(column for name, column in last.items() if column != first[name])
    return sorted(found)


def blocks(
    names: Sequence[str], unknown: NDArray[np.bool_], repeated: NDArray[np.bool_], is_symbol: Callable[[str], bool]
) -> dict[int, str]:
    """Columns of antibodies and guides at the end or the start of the columns, each with the reason to leave it out.

    Args:
        names: of all columns.
        unknown: ``[columns]``, whether no gene was found, or the column is no gene for another reason.
        repeated: ``[columns]``, whether the gene has another column.
        is_symbol: whether a name is the current symbol of a gene.
    """
    long = [c for c in np.flatnonzero(unknown).tolist() if len(names[c]) > _SHORTEST_SEQUENCE]
    found = {column: "guide" for column in long if _SEQUENCE.fullmatch(names[column])}
    # Of a selection of genes, some have no column but that of the antibody.
    marked = unknown | repeated
    for column in (*range(min(len(names), _MOST_COLUMNS)), *range(max(0, len(names) - _MOST_COLUMNS), len(names))):
        marked[column] = marked[column] or is_protein(names[column])
    for columns in ends(marked):
        odd = [column for column in columns if not is_symbol(names[column])]
        proteins = {column for column in odd if is_protein(names[column])}
        guides = {column for column in odd if _GUIDE.fullmatch(names[column])} | _numbered(names, columns, repeated)
        for anchors, reason in ((proteins, "antibody"), (guides, "guide")):
            block = _block(columns, anchors, repeated)
            found |= dict.fromkeys(block, reason)
    return found


def ends(marked: NDArray[np.bool_]) -> list[list[int]]:
    """The marked columns at the end, from the last one inwards, and those at the start, from the first one.

    More than half of all columns are no block.
    """
    order = np.arange(len(marked))
    found = []
    for direction in (order[::-1], order):
        stop = np.flatnonzero(~marked[direction])
        length = int(stop[0]) if len(stop) else len(marked)
        found.append(direction[:length].tolist() if length <= min(_MOST_COLUMNS, len(marked) // 2) else [])
    return found


def _block(columns: list[int], anchors: set[int], repeated: NDArray[np.bool_]) -> list[int]:
    """The part of a run up to its last anchor, and the repeated genes right after that."""
    known = [column for column in columns if column in anchors]
    if len(known) < _FEW_ANCHORS or len(columns) < _FEW_COLUMNS:
        return []
    stop = columns.index(known[-1]) + 1
    while stop < len(columns) and repeated[columns[stop]]:
        stop += 1
    return columns[:stop] if len(known) >= _ANCHOR_SHARE * stop else known


def _numbered(names: Sequence[str], columns: list[int], repeated: NDArray[np.bool_]) -> set[int]:
    """Columns GENE-1, GENE-2 of several genes that also have a column GENE."""
    stems = {c: match[1] for c in columns if repeated[c] and (match := _NUMBER.match(names[c]))}
    several = {stem for stem, number in Counter(stems.values()).items() if number > 1}
    return {c for c, stem in stems.items() if stem in several} if len(several) > 1 else set()


def refuse_proteins(names: Sequence[str], is_symbol: Callable[[str], bool]) -> None:
    """Raise InputError if so many columns are named like antibodies that there is no RNA."""
    found = [name for name in names[:_MOST_COLUMNS] if is_protein(name) and not is_symbol(name)]
    if len(names) > _MOST_COLUMNS or len(found) < _FEW_COLUMNS or len(found) < _ALL_PROTEINS * len(names):
        return
    raise InputError(
        "antibodies",
        f"{len(found)} of {len(names)} columns are named like antibodies, e.g. '{found[0]}': proteins, not genes.",
        hint="Send the RNA counts of the cells. If these are genes, name them by HGNC symbol (CD3E, FCGR3A).",
        field="genes",
        gene=found[0],
    )


def refuse_outweighed(matrix: CellMatrix, target: NDArray[np.int32], columns: Sequence[int]) -> None:
    """Refuse counts if many columns repeat genes with far more counts than the genes' other columns have.

    Antibodies that are named like genes do so. ``target``: gene of each column, or -1. Raises InputError.
    """
    totals = np.bincount(matrix.indices, matrix.data, matrix.num_genes)
    known = target >= 0
    of_gene = np.bincount(target[known], totals[known])
    run = np.sort(np.array(columns, np.int64))
    others = of_gene[target[run]] - totals[run]
    heavy = totals[run] > _OUTWEIGHED * (others + 1)
    if heavy.sum() < _FEW_COLUMNS or 2 * heavy.sum() < len(run) or totals[run].sum() < _SOME_COUNTS * totals.sum():
        return
    example = [str(matrix.genes[column]) for column in run[heavy][:3]]
    raise InputError(
        "repeated-genes",
        f"{int(heavy.sum())} columns next to each other, such as {', '.join(example)}, repeat genes with far more "
        "counts than the genes' other columns have. They look like antibodies.",
        hint="Remove these columns, or name the type of each column in var['feature_types'] (Gene Expression, Antibody "
        "Capture).",
        field="genes",
        gene=example[0],
    )
