"""Refuse names that cannot be matched: of another species, of another kind, contradictory, or on the wrong axis."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.repair import NO_NAMES
from scpalm.model.genes.vocabulary import Vocabulary

_OTHER_SPECIES_ID = re.compile(r"ENS(?!G|R|T|P|E)[A-Z]{3,5}G\d{11}")
# With fewer known names than this, or a smaller share of them, a file uses other names; it is not just a small panel.
_FEW_GENES = 10
_FEW_SHARE = 0.02
# Shares of columns whose id and symbol are both current and disagree. Annotations of different years differ in 1 %.
_CONTRADICTION = 0.1
_FEW_CONTRADICTIONS = 5

_KINDS: tuple[tuple[str, str, str], ...] = (
    (r"ENST\d{11}", "transcripts (ENST...)", "Sum the transcripts of each gene, and name the genes."),
    (r"ENSP\d{11}|[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d[A-Z][A-Z\d]{2}\d", "proteins", "Send RNA counts of genes."),
    (r"\d+_(?:[a-z]_)?at|\w+_(?:at|st)", "probe sets of a microarray", "Map the probes to HGNC symbols."),
    (r"ILMN_\d+", "probes of a microarray", "Map the probes to HGNC symbols."),
    (r"N[MR]_\d+(?:\.\d+)?|X[MR]_\d+(?:\.\d+)?", "RefSeq transcripts", "Sum the transcripts of each gene by symbol."),
    (r"HGNC:\d+", "HGNC ids", "Use the symbols that belong to the ids."),
    (r"\d+(?:\.0)?", "numbers", "If they are Entrez ids, map them to HGNC symbols; else name the columns by genes."),
    (r"(?:chr)?[\dXYM]+[:_-]\d+[-_:]\d+", "genomic regions", "Send RNA counts of genes."),
    (r"[ACGT]{12,}(?:-\d+)?", "cell barcodes", "The matrix seems to be transposed: cells are rows. Use adata.T."),
)


def refuse_contradiction(vocabulary: Vocabulary, names: Sequence[str], ids: Sequence[str] | None) -> None:
    """Raise InputError (``ids-contradict-names``) if ids and symbols of many columns are of different genes."""
    if ids is None:
        return
    both = different = 0
    example = ("", "")
    for name, id_ in zip(names, ids, strict=True):
        by_name = vocabulary.by_symbol.get(name, -1)
        by_id = vocabulary.find_id(id_) if by_name >= 0 and id_ else -1
        if by_id >= 0:
            both += 1
            if by_id != by_name:
                different += 1
                example = example if example[0] else (name, id_)
    if different >= _FEW_CONTRADICTIONS and different > _CONTRADICTION * both:
        raise InputError(
            "ids-contradict-names",
            f"Names and Ensembl ids contradict each other in {different} of {both} columns, e.g. '{example[0]}' has "
            f"the id {example[1]}, which is another gene.",
            hint="Check how var was merged. Remove the column of ids, or the names, whichever is wrong.",
            field="genes",
            gene=example[0],
        )


def other_species(vocabulary: Vocabulary, columns: GeneColumns, names: Sequence[str], matched: int) -> None:
    """Raise InputError (``wrong-species``) for ids of another species, or for symbols written like those of mice."""
    ids = columns.ensembl_ids or ()
    foreign = sum(bool(_OTHER_SPECIES_ID.match(str(name))) for name in ids) if ids else 0
    foreign = foreign or sum(bool(_OTHER_SPECIES_ID.match(name)) for name in names)
    if 2 * foreign > len(names):
        example = next(str(name) for name in (*ids, *names) if _OTHER_SPECIES_ID.match(str(name)))
        _refuse_species(f"The Ensembl ids are those of another species, e.g. '{example}'.", example)
    if 4 * matched >= len(names):
        return
    # Mouse symbols are the human ones in title case.
    title_case = [
        n for n in names if n not in vocabulary.by_symbol and n == n.capitalize() and n.upper() in vocabulary.by_symbol
    ]
    if len(title_case) > matched and 10 * len(title_case) >= len(names):
        _refuse_species(
            f"The gene names are written like those of another species, e.g. '{title_case[0]}'; only {matched} of "
            f"{len(names)} are human symbols.",
            title_case[0],
        )


def _refuse_species(detail: str, example: str) -> None:
    raise InputError(
        "wrong-species",
        detail,
        hint="The model knows human genes only: map the names to human orthologues (HGNC symbols or ENSG ids), and "
        "leave out the ids of the other species. Human symbols are written in capital letters.",
        field="genes",
        gene=example,
    )


def few_known(
    vocabulary: Vocabulary, columns: GeneColumns, names: Sequence[str], matched: int, num_left_out: int
) -> None:
    """Raise InputError (``no-known-gene``, ``too-few-genes``, ``transposed``) if too few names are known."""
    num_genes = len(names) - num_left_out
    if not ((matched < _FEW_GENES and 2 * matched < num_genes) or matched < _FEW_SHARE * num_genes or not matched):
        return
    known_rows = sum(vocabulary.find(name)[0] >= 0 for name in columns.cells)
    if known_rows >= 3 and 2 * known_rows > len(columns.cells):
        raise InputError(
            "transposed",
            f"The names of the rows are genes, e.g. '{columns.cells[0]}': the matrix is transposed.",
            hint="Rows are cells and columns are genes: transpose it (adata.T).",
            field="genes",
        )
    unknown = [name for name in names if name.upper() not in NO_NAMES and vocabulary.find(name)[0] < 0]
    example = unknown[0] if unknown else (names[0] if names else "")
    what, hint = _kind_of(unknown)
    small = sum(name == name.lower() and name.upper() in vocabulary.by_symbol for name in unknown)
    if 2 * small > len(unknown):
        what, hint = " The names are in small letters.", "Human symbols are written in capital letters (CD3D)."
    raise InputError(
        "no-known-gene" if matched == 0 else "too-few-genes",
        f"The model knows {matched} of the {num_genes} gene names; unknown is, for example, '{example}'.{what}",
        hint=hint,
        field="genes",
        gene=example,
    )


def _kind_of(unknown: Sequence[str]) -> tuple[str, str]:
    for pattern, what, hint in _KINDS:
        if 2 * sum(bool(re.fullmatch(pattern, name)) for name in unknown) > max(1, len(unknown)):
            return f" The names look like {what}.", hint
    return "", "Name the genes by HGNC symbol or Ensembl gene id (ENSG...)."
