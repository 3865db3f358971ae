"""Names of genes as they arrive after R, Excel, reference builders and typesetters, and the names that were meant."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from scpalm.model.genes.non_genes import HUMAN_PREFIX, OTHER_PREFIX
from scpalm.model.genes.vocabulary import NOT_FOUND, How, Vocabulary

# What programs write where there is no name. "NA" is an alias of a gene, too.
NO_NAMES = frozenset(
    {"", "NA", "N/A", "NAN", "NONE", "NULL", "-", "--", ".", "?", "UNKNOWN", "<NA>", "#N/A", "NOT FOUND"}
)

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_DASHES = re.compile("[\u2010-\u2015\u2043\u207b\u208b\u2212\ufe58\ufe63\uff0d]")
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
_ID_INSIDE = re.compile(r"ENSG(?:\d{11}|R\d{10})(?!\d)")
_SEPARATORS = re.compile(r"\s*(?:[|;:,/]|\s)\s*")
_NUMBER_AT_END = re.compile(r"(.+?)(?:--|[-._])\d{1,2}\Z")
_ORF = re.compile(r"C(\d+|X|Y)ORF(\d+\w*)\Z", re.IGNORECASE)
_MONTHS = {"mar": "MARCHF", "sep": "SEPTIN", "dec": "DELEC", "march": "MARCHF", "sept": "SEPTIN", "oct": "", "feb": "",
           "apr": "", "nov": "", "may": ""}  # fmt: skip
_DATE = re.compile(r"(?:(\d{1,2})[-/. ]([A-Za-z]{3,5})|([A-Za-z]{3,5})[-/. ](\d{1,2}))\Z")
_ISO_DATE = re.compile(r"(?:19|20)\d\d-(\d\d)-(\d\d)(?:[ T]00:00:00)?\Z")
_ISO_MONTHS = {"03": "mar", "09": "sep", "12": "dec"}
# MARCH1 and MARC1 both become 1-Mar, but only MARC1 and MARC2 exist: later numbers are MARCH3 and so on.
_AMBIGUOUS_DATES = frozenset({("mar", 2)})

# Names of mitochondrial genes in RefSeq's annotation. COX1 and COX2 alone are aliases of PTGS1 and PTGS2, too.
REFSEQ_MITOCHONDRIA = {
    **{f"ND{n}": f"MT-ND{n}" for n in ("1", "2", "3", "4", "4L", "5", "6")},
    **{f"COX{n}": f"MT-CO{n}" for n in (1, 2, 3)},
    **{f"CO{n}": f"MT-CO{n}" for n in ("1", "2", "3", "I", "II", "III")},
    "COXI": "MT-CO1",
    "COXII": "MT-CO2",
    "COXIII": "MT-CO3",
    "ATP6": "MT-ATP6",
    "ATP8": "MT-ATP8",
    "CYTB": "MT-CYB",
    "COB": "MT-CYB",
    "CYB": "MT-CYB",
    "RNR1": "MT-RNR1",
    "RNR2": "MT-RNR2",
}
for _roman, _number in (("I", 1), ("II", 2), ("III", 3)):
    REFSEQ_MITOCHONDRIA[f"CO{_roman}"] = REFSEQ_MITOCHONDRIA[f"COX{_roman}"] = f"MT-CO{_number}"
_FEW_MITOCHONDRIAL = 4


def clean(name: str) -> str:
    """The name without what cannot be seen: zero-width characters, typeset dashes, quotes, spaces around it."""
    if name.isascii():
        return name.strip().strip(_QUOTES).strip()
    name = _DASHES.sub("-", _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)))
    return name.replace("\u00a0", " ").strip().strip(_QUOTES).strip()


def is_date(name: str) -> bool:
    """Whether Excel may have made this of a symbol such as MARCH1 or SEPT9."""
    return _gene_of_date(name) is not None


def _gene_of_date(name: str) -> str | None:
    """The symbol that became this date; "" if several may have, None if it is no date."""
    iso = _ISO_DATE.match(name)
    if iso:
        month, day = _ISO_MONTHS.get(iso[1], ""), int(iso[2])
    else:
        match = _DATE.match(name)
        if match is None:
            return None
        month, day = (match[2] or match[3]).lower(), int(match[1] or match[4])
    if month not in _MONTHS:
        return "" if iso else None
    family = _MONTHS[month]
    return "" if not family or (month, day) in _AMBIGUOUS_DATES else f"{family}{day}"


class Repairs:
    """Finds the genes of names that are not in the vocabulary as they stand.

    Args:
        vocabulary: the genes.
        names: all names of a file: what they have in common decides about prefixes.
    """

    def __init__(self, vocabulary: Vocabulary, names: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self.prefix = _shared_prefix(names)
        self.mitochondria = _mitochondria(names)
        self.unspliced = _unspliced(names)

    def find(self, name: str) -> tuple[int, How, str]:
        """Position of the gene, how its repaired name was found, and the kind of repair; (-1, "", "") if unknown."""
        for meant, kind in self._readings(name):
            position, how = self._vocabulary.find(meant)
            if position >= 0 and meant.upper() not in NO_NAMES:
                return position, how, kind
        return *NOT_FOUND, ""

    def _readings(self, name: str) -> Iterator[tuple[str, str]]:
        cleaned = clean(name)
        if cleaned.upper() in NO_NAMES:
            return
        if cleaned != name.strip():
            yield cleaned, "characters"
        if cleaned in self.mitochondria:
            yield self.mitochondria[cleaned], "mitochondrial name"
        rest = self._after_prefix(cleaned)
        if rest is not None:
            yield rest, "prefix"
            yield from ((meant, "prefix") for meant, _ in self._of_one(rest))
        yield from self._of_one(cleaned)

    def _after_prefix(self, name: str) -> str | None:
        match = HUMAN_PREFIX.match(name)
        if match:
            return name[match.end() :]
        return name[len(self.prefix) :] if self.prefix and name.startswith(self.prefix) else None

    def _of_one(self, name: str) -> Iterator[tuple[str, str]]:
        inside = _ID_INSIDE.search(name)
        if inside:
            yield inside[0], "id within the name"
            return
        date = _gene_of_date(name)
        if date is not None:
            yield date, "date of Excel"
            return
        if self.unspliced and name[-2:] in ("-U", "-A", "-I"):
            yield name[:-2], "unspliced"
        yield from ((meant, "dots") for meant in _with_dashes(name))
        stem = _NUMBER_AT_END.match(name)
        if stem:
            yield from self._symbols((stem[1], *_with_dashes(stem[1])), "repeated name")
        orf = _ORF.match(name)
        if orf:
            yield f"C{orf[1].upper()}orf{orf[2].lower()}", "case"
        if name.startswith("X") and name[1:2].isdigit():
            yield name[1:], "dots"
        if name == name.upper():
            folded = self._vocabulary.by_folded.get(name.upper())
            if folded is not None:
                yield self._vocabulary.symbols[folded], "case"
        yield from self._part(name)

    def _symbols(self, names: Sequence[str], kind: str) -> Iterator[tuple[str, str]]:
        """Those names that are current symbols: a number after an alias may belong to it."""
        for name in names:
            if name in self._vocabulary.by_symbol:
                yield name, kind

    def _part(self, name: str) -> Iterator[tuple[str, str]]:
        parts = [part for part in _SEPARATORS.split(name) if part]
        if len(parts) < 2:
            return
        # More than one gene: a probe for a family, which is none of them.
        found = {self._vocabulary.find(part)[0] for part in parts if part.upper() not in NO_NAMES} - {-1}
        if len(found) == 1:
            yield self._vocabulary.ensembl_ids[found.pop()], "part of the name"


def _with_dashes(name: str) -> Iterator[str]:
    """R's make.names turns dashes into dots, other programs into underscores."""
    for character in "._":
        if character in name:
            yield name.replace(character, "-")
            head, _, tail = name.partition(character)
            yield f"{head}-{tail}"
            head, _, tail = name.rpartition(character)
            yield f"{head}-{tail}"


def _shared_prefix(names: Sequence[str]) -> str:
    """What nine of ten names begin with, up to a separator; "" if there is nothing."""
    if len(names) < 3:
        return ""
    firsts = Counter(match[0] for name in names if (match := re.match(r"[A-Za-z][\w]*?[_:|.]+|[A-Za-z]\w*?-+", name)))
    if not firsts:
        return ""
    prefix, count = firsts.most_common(1)[0]
    return prefix if 10 * count >= 9 * len(names) else ""


def _mitochondria(names: Sequence[str]) -> dict[str, str]:
    present = {name for name in map(clean, names) if name in REFSEQ_MITOCHONDRIA}
    genes = {REFSEQ_MITOCHONDRIA[name] for name in present}
    # ATP6, COX1 and the like have other meanings; several together, and no MT- gene, can only be these.
    if len(genes) < _FEW_MITOCHONDRIAL or any(name.upper().startswith(("MT-", "MT.", "MT_")) for name in names):
        return {}
    return {name: REFSEQ_MITOCHONDRIA[name] for name in present}


def _unspliced(names: Sequence[str]) -> bool:
    """Whether columns GENE-U and GENE-A stand beside GENE: spliced, unspliced and ambiguous counts of alevin-fry."""
    known = set(names)
    marked = sum(name[-2:] in ("-U", "-A", "-I") and name[:-2] in known for name in names)
    return marked >= 3 and 4 * marked >= len(names)


def is_foreign(name: str) -> bool:
    """Whether the name begins with a reference of another species, such as ``mm10_``."""
    return OTHER_PREFIX.match(name) is not None
