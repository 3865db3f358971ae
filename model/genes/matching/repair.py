"""Names of genes as R, Excel, reference builders and typesetters leave them, and the names that were meant."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from scpalm.model.errors import InputError
from scpalm.model.genes.matching.non_genes import HUMAN_PREFIX, OTHER_PREFIX
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
# A number that makes a repeated name unique, or the Entrez id after an underscore.
_NUMBER_AT_END = re.compile(r"(.+?)(?:(?:--|[-._])\d{1,2}|_\d+)\Z")
_CLONE = re.compile(r"(?:(?:RP\d+|CT[A-D]|KB|GS1)-\w+\.\d+|A[A-Z]\d{6}\.\d+|LINC\d{5})\Z")
# Families of genes whose symbols became dates of these months; "" for months of symbols that are not in use.
_MONTHS = {"mar": "MARCHF", "march": "MARCHF", "sep": "SEPTIN", "sept": "SEPTIN", "dec": "DELEC"}
_MONTHS |= dict.fromkeys(("feb", "apr", "may", "oct", "nov"), "")
_DATE = re.compile(r"(?:(\d{1,2})[-/. ]([A-Za-z]{3,5})|([A-Za-z]{3,5})[-/. ](\d{1,2}))\Z")
_ISO_DATE = re.compile(r"(?:19|20)\d\d-(\d\d)-(\d\d)(?:[ T]00:00:00)?\Z")
_ISO_MONTHS = {"03": "mar", "09": "sep", "12": "dec"}
# MARCH1 and MARC1 both become 1-Mar, but only MARC1 and MARC2 exist: later numbers are MARCH3 and so on.
_AMBIGUOUS_DATES = frozenset({("mar", 2)})

_ROMAN = ((1, "I"), (2, "II"), (3, "III"))
# Names of mitochondrial genes in RefSeq's annotation. COX1 and COX2 alone are aliases of PTGS1 and PTGS2, too.
REFSEQ_MITOCHONDRIA = {
    **{f"ND{number}": f"MT-ND{number}" for number in ("1", "2", "3", "4", "4L", "5", "6")},
    **{f"{stem}{name}": f"MT-CO{n}" for stem in ("CO", "COX") for n, roman in _ROMAN for name in (n, roman)},
    **{name: f"MT-{name}" for name in ("ATP6", "ATP8", "CYB", "RNR1", "RNR2")},
    **dict.fromkeys(("CYTB", "COB"), "MT-CYB"),
}
_FEW_MITOCHONDRIAL = 4
# What pandas adds to columns of the same name when tables are merged.
_MERGED = (("_x", "_y"), ("_left", "_right"))
# What R makes of DepMap's "CD3D (915)".
_WITH_NUMBER = re.compile(r"(\S+?)\.\.\d+\.")
# Counts of a part of each gene, which add up to the gene.
_OF_GENE = re.compile(
    r"(\S+?)[-_.](?:exon(?:s|ic)?|intron(?:s|ic)?|(?:un)?spliced|mature|nascent|ambiguous|pre-?mrna)", re.IGNORECASE
)
_MERGED_ENDINGS = tuple(ending for pair in _MERGED for ending in pair)
_FEW_MERGED = 3
_ENDINGS = (re.compile(r"(.+)[-._]\d{1,2}\Z"), re.compile(r"(.+)[-._:| ][A-Za-z][A-Za-z\d]{0,11}\Z"))


def clean(name: str) -> str:
    """The name without what cannot be seen: zero-width characters, typeset dashes, quotes, spaces around it."""
    if name.startswith(("b'", 'b"')) and name.endswith(name[1]):
        name = name[1:]  # bytes that Python printed
    if name.isascii():
        return name.strip().strip(_QUOTES).strip()
    name = _DASHES.sub("-", _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)))
    return name.replace("\u00a0", " ").strip().strip(_QUOTES).strip()


def is_clone(name: str) -> bool:
    """Whether this is the well-formed name of a transcript known by its clone only, such as RP11-34P13.7.

    Thousands of such genes are in no vocabulary. There is nothing to repair.
    """
    return _CLONE.match(name) is not None


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
    """Finds the genes of names that are not in the vocabulary.

    Args:
        vocabulary: the genes.
        names: all names of a file: what they have in common decides about prefixes.
    """

    def __init__(self, vocabulary: Vocabulary, names: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._names = set(names)
        self.prefix = _shared_prefix(names)
        self.mitochondria = _mitochondria(names)
        self.unspliced = _unspliced(names)
        some = names[:: max(1, len(names) // 500)]
        # XIST_intron alone is a separate transcript.
        self._parts = 10 * sum(_OF_GENE.fullmatch(name) is not None for name in some) >= len(some)

    def find(self, name: str) -> tuple[int, How, str]:
        """Position of the gene, how its repaired name was found, and the kind of repair; (-1, "", "") if unknown."""
        cleaned = clean(name)
        if cleaned.upper() in NO_NAMES:
            return *NOT_FOUND, ""
        if cleaned in self.mitochondria:
            return *self._vocabulary.find(self.mitochondria[cleaned]), "mitochondrial name"
        if cleaned != name.strip():
            position, how = self._vocabulary.find(cleaned)
            if position >= 0:
                return position, how, "characters"
        found = self._find_simple(cleaned)
        if found[0] >= 0:
            return found
        for inner, kind in self._peeled(cleaned):
            for position, how in (self._vocabulary.find(inner), self._find_simple(inner)[:2]):
                if position >= 0:
                    return position, how, kind
        return self._find_part(cleaned)

    def _find_simple(self, name: str) -> tuple[int, How, str]:
        for meant, kind in self._simple(name):
            position, how = self._vocabulary.find(meant)
            if position >= 0:
                return position, how, kind
        return *NOT_FOUND, ""

    def _simple(self, name: str) -> Iterator[tuple[str, str]]:
        """What a name without prefixes and further parts may have been."""
        inside = _ID_INSIDE.search(name)
        if inside:
            yield inside[0], "id within the name"
            yield name.replace(inside[0], "").strip("_|:;,.- "), "part of the name"
        date = _gene_of_date(name)
        if date is not None:
            yield date, "date of Excel"
            return
        if stem_of(name) in self._names:
            yield stem_of(name), "repeated name"
        if match := _WITH_NUMBER.fullmatch(name):
            yield match[1], "part of the name"
            yield from ((meant, "part of the name") for meant in with_dashes(match[1]))
        if self._parts and (match := _OF_GENE.fullmatch(name)):
            yield match[1], "part of a gene"
        if name.endswith(_MERGED_ENDINGS):
            yield name.rpartition("_")[0], "name of a merged table"
        yield from self._respelled(name)

    def _respelled(self, name: str) -> Iterator[tuple[str, str]]:
        folded = self._vocabulary.by_folded if name == name.upper() else {}
        for meant in with_dashes(name):
            yield meant, "dots"
            if meant in folded:
                yield folded[meant], "dots"
        # A number after an alias may belong to it.
        stem = stem_of(name)
        for meant in (stem, *with_dashes(stem)):
            if self._vocabulary.find(meant)[1] in ("symbol", "previous"):
                yield meant, "repeated name"
        if name.startswith("X") and name[1:2].isdigit():
            yield name[1:], "dots"
        if name in folded:
            yield folded[name], "case"

    def cores(self, name: str) -> list[str]:
        """The name without invisible characters, and also without a prefix, a mark or further parts."""
        cleaned = clean(name)
        first = _SEPARATORS.split(cleaned)[0] if "|" in cleaned or ";" in cleaned else cleaned
        return list(dict.fromkeys([cleaned, *(inner for inner, _ in self._peeled(cleaned)), first]))

    def _peeled(self, name: str) -> Iterator[tuple[str, str]]:
        """The name without the prefix of a reference, and without the mark of unspliced counts."""
        match = HUMAN_PREFIX.match(name)
        if match:
            yield name[match.end() :], "prefix"
        elif self.prefix and name.startswith(self.prefix):
            yield name[len(self.prefix) :], "prefix"
        if self.unspliced and name[-2:] in ("-U", "-A", "-I"):
            yield name[:-2], "unspliced"

    def _find_part(self, name: str) -> tuple[int, How, str]:
        """The gene that one part of a name is, if it is the only gene among them."""
        parts = [part for part in _SEPARATORS.split(name) if part.upper() not in NO_NAMES and not part.isdigit()]
        if parts == [name] or "/" in name:  # HBA1/2 is a probe for a family
            return *NOT_FOUND, ""
        found: dict[int, How] = {}
        for part in parts:
            position, how = self._vocabulary.find(part)
            if position < 0:
                position, how, _ = self._find_simple(part)
            found.setdefault(position, how)
        found.pop(-1, None)
        # More than one gene is a probe for a family, which is none of them.
        return (*next(iter(found.items())), "part of the name") if len(found) == 1 else (*NOT_FOUND, "")


def stem_of(name: str) -> str:
    """The name without a number at its end that makes it unique; "" if there is none."""
    match = _NUMBER_AT_END.match(name)
    return match[1] if match else ""


def with_dashes(name: str) -> Iterator[str]:
    """R's make.names turns dashes into dots, other programs into underscores."""
    for character in "._":
        number = name.count(character)
        if number:
            yield name.replace(character, "-")
        if number > 1:
            head, _, tail = name.partition(character)
            yield f"{head}-{tail}"
            head, _, tail = name.rpartition(character)
            yield f"{head}-{tail}"


def _shared_prefix(names: Sequence[str]) -> str:
    """What nine of ten names begin with, up to a separator; "" if there is nothing."""
    if len(names) < 3:
        return ""
    names = names[:: max(1, len(names) // 500)]
    firsts = Counter(match[0] for name in names if (match := re.match(r"[A-Za-z][\w]*?[_:|.]+|[A-Za-z]\w*?-+", name)))
    if not firsts:
        return ""
    prefix, count = firsts.most_common(1)[0]
    return prefix if 10 * count >= 9 * len(names) else ""


def without_ending(names: Sequence[str]) -> list[str] | None:
    """The names without what nine of ten end with: the same word (``CD3D_RNA``), or a number (``CD3D-1``)."""
    if len(names) < 3:
        return None
    sample = names[:: max(1, len(names) // 500)]
    for pattern in _ENDINGS:
        endings = Counter(name[match.end(1) :] for name in sample if (match := pattern.match(name)))
        number = pattern is _ENDINGS[0]
        common = sum(endings.values()) if number else max(endings.values(), default=0)
        if 10 * common < 9 * len(sample):
            continue
        ending = endings.most_common(1)[0][0]
        if not number:
            return [name.removesuffix(ending) for name in names]
        return [match[1] if (match := pattern.match(name)) else name for name in names]
    return None


def refuse_merged_tables(names: Sequence[str]) -> None:
    """Raise InputError if many genes have two columns, GENE_x and GENE_y, of two tables that were merged."""
    text = "\n".join((*names, ""))
    for first, second in _MERGED:
        if f"{first}\n" not in text or f"{second}\n" not in text:
            continue
        stems = {name.removesuffix(first) for name in names if name.endswith(first)}
        both = sorted(stems & {name.removesuffix(second) for name in names if name.endswith(second)})
        if len(both) >= _FEW_MERGED:
            raise InputError(
                "merged-tables",
                f"{len(both)} genes have two columns, e.g. '{both[0]}{first}' and '{both[0]}{second}': two tables of "
                "the same cells were merged.",
                hint="Keep one column of each gene. To put cells of two files together, concatenate the rows "
                "(anndata.concat, pandas.concat).",
                field="genes",
                gene=f"{both[0]}{first}",
            )


def _mitochondria(names: Sequence[str]) -> dict[str, str]:
    present = REFSEQ_MITOCHONDRIA.keys() & set(names)
    genes = {REFSEQ_MITOCHONDRIA[name] for name in present}
    # ATP6, COX1 and the like have other meanings; several together, and no MT- gene, can only be these.
    if len(genes) < _FEW_MITOCHONDRIAL or any(name.upper().startswith(("MT-", "MT.", "MT_")) for name in names):
        return {}
    return {name: REFSEQ_MITOCHONDRIA[name] for name in present}


def _unspliced(names: Sequence[str]) -> bool:
    """Whether columns GENE-U and GENE-A stand next to GENE: spliced, unspliced and ambiguous counts of alevin-fry."""
    known = set(names)
    marked = sum(name[-2:] in ("-U", "-A", "-I") and name[:-2] in known for name in names)
    return marked >= 3 and 4 * marked >= len(names)


def is_foreign(name: str) -> bool:
    """Whether the name begins with a reference of another species, such as ``mm10_``."""
    return OTHER_PREFIX.match(name) is not None
