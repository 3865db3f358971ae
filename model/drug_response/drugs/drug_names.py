"""Names of drugs as people write them: with salts, doses, notes, other dashes; and near names for what is unknown."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator

# Only the letters of elements that need no brackets: CCCP, CNO and BSO are drugs as well as chains of atoms.
_SHORT_CHAIN = re.compile(r"[BCNOPSFI]{1,7}")
_DASHES = re.compile(r"[\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d\u00ad]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "μ": "u", "µ": "u"}
_QUOTES = "\"'`´‘’“”"

_ACIDS = (
    "acetate|aspartate|benzoate|besylate|besilate|bisulfate|bitartrate|bromide|camsylate|chloride|citrate|edisylate|"
    "embonate|esylate|formate|fumarate|gluconate|glutamate|glycolate|hydrobromide|hydrochloride|hydroiodide|iodide|"
    "isethionate|lactate|malate|maleate|malonate|mandelate|mesylate|mesilate|methanesulfonate|methanesulphonate|"
    "monohydrochloride|napsylate|nitrate|oxalate|pamoate|phosphate|succinate|sulfate|sulphate|tartrate|tfa|tosylate|"
    "tosilate|trifluoroacetate|xinafoate|hcl|hbr"
)
_BASES = "ammonium|calcium|choline|lithium|lysine|magnesium|meglumine|potassium|sodium|tromethamine|zinc|na|k"
_WATER = "anhydrous|hydrate|monohydrate|dihydrate|trihydrate|hemihydrate|ethanolate|dmso|solvate|free base|free acid"
_MANY = r"(?:hemi|mono|sesqui|di|bi|bis|tri|tetra|\d+ ?x? ?)?"
_SALT = re.compile(
    rf"(?P<name>.+?)[ \-_.·•]*[( ]?\b(?:[LDSR]{{1,2}}-)?{_MANY}(?P<salt>{_ACIDS}|{_BASES}|{_WATER}|salt)\)?$",
    re.IGNORECASE,
)
# Ester prodrugs are named like salts; these acids make both.
_ESTERS = re.compile(r"acetate|benzoate|lactate|phosphate|succinate|formate|malonate|glycolate|nitrate", re.IGNORECASE)

_BRACKETS = re.compile(r"(?P<name>.+?)\s*[(\[{](?P<note>[^()\[\]{}]*)[)\]}]$")
_DOSE = re.compile(
    r"(?P<name>.+?)[\s,;@_]+\(?(?P<note>\d+(?:\.\d+)?\s?(?:[munpμ]M|[munpμ]?mol(?:/l)?|mg/kg|[munμ]g/ml))\)?$",
    re.IGNORECASE,
)
_STEREO = r"[(\[]?(?:\+/-|±|[+\-±]|rac|[RSEZDL]|\d+[RSEZ](?:,\d+[RSEZ])*)[)\]]?|cis|trans|rac|all-trans"
_STEREO_FIRST = re.compile(rf"(?P<note>(?:{_STEREO}))-(?P<name>.{{3,}})")
_STEREO_LAST = re.compile(r"(?P<name>.{3,}?)\s*(?P<note>\((?:\+/-|±|[+\-±]|[RSEZ])\))")
# Notes in brackets that do not make another drug of it.
_PLAIN_NOTE = re.compile(
    r"\d{1,7}|gdsc ?[12]?|ccle|ctrp|prism|rescreen(?:ed)?|screen \w+|batch \w+|replicate \w+|rep \w+|cid:? ?\d+|"
    r"\d+(?:\.\d+)?\s?[munp]m|free base|base|\+/-|±|[+\-RSEZ]|racemic|[a-z]{1,5}[ -]?\d{2,}[a-z0-9-]*",
    re.IGNORECASE,
)
_RATIO = re.compile(r"\(?\s*\d+\s*:\s*\d+\s*(?:mol/mol|w/w|v/v|ratio)?\s*\)?$", re.IGNORECASE)
_TOGETHER = re.compile(r"\s*(?::|\+|&|/|\band\b|\bwith\b|\bplus\b|\bcombo\b)\s*", re.IGNORECASE)
_WRONG_SEPARATOR = re.compile(r"\s*[;|\t\n]\s*")


def tidy(text: str) -> str:
    """The text with plain dashes, spaces and width, and without marks that cannot be seen, and without quotes."""
    # Superscripts stay: NFKC would make another number of them.
    text = "".join(char if unicodedata.category(char) == "No" else unicodedata.normalize("NFKC", char) for char in text)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return _DASHES.sub("-", text).strip().strip(_QUOTES).rstrip("®™©").strip()


def has_control_character(text: str) -> bool:
    """Whether the text has a NUL or another control character, tabs and line ends aside."""
    return _CONTROL.search(text) is not None


def folded(name: str) -> str:
    """What two spellings of one name have in common: no case, spaces, hyphens, trade marks, Greek letters."""
    plain = "".join(_GREEK.get(char, char) for char in tidy(name).casefold())
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)  # PF-562,271
    return re.sub(r"[\s\-_®™]", "", plain)


def is_short_chain(text: str) -> bool:
    """Whether the text is under eight capitals that are elements: more often an abbreviation than a molecule."""
    return _SHORT_CHAIN.fullmatch(text) is not None


def simpler_names(text: str) -> Iterator[tuple[str, str]]:
    """The name without one salt, dose, stereo prefix or note; what was left out, in words. Nearest first."""
    if match := _DOSE.fullmatch(text):
        yield match["name"], f"dose '{match['note']}' in the name ignored"
    for pattern in (_STEREO_LAST, _STEREO_FIRST):
        if match := pattern.fullmatch(text):
            yield match["name"], f"stereo mark '{match['note']}' in the name ignored"
    if match := _SALT.fullmatch(text):
        yield match["name"].strip(" -_("), f"salt '{match['salt']}' in the name ignored"
    if (match := _BRACKETS.fullmatch(text)) and _PLAIN_NOTE.fullmatch(match["note"].strip()):
        yield match["name"], f"note '{match['note']}' in the name ignored"


def bracketed_note(text: str) -> tuple[str, str] | None:
    """Name and note of ``name (note)``, or None."""
    match = _BRACKETS.fullmatch(text)
    return (match["name"], match["note"]) if match else None


def may_be_ester(change: str) -> bool:
    """Whether a salt that `simpler_names` left out may be an ester instead, which is another compound."""
    return change.startswith("salt") and _ESTERS.search(change) is not None


def mixture_parts(text: str) -> tuple[list[str], bool]:
    """The drugs that a text joins by ``+``, ``:``, ``&`` or the like, and whether it gives their ratio."""
    without = _RATIO.sub("", text).strip()
    parts = [part for part in _TOGETHER.split(without) if part]
    return (parts if len(parts) > 1 else []), without != text.strip()


def separated_wrongly(text: str) -> list[str]:
    """The parts of a text with semicolons, bars, tabs or line ends in it, or nothing."""
    parts = [part for part in _WRONG_SEPARATOR.split(text) if part]
    return parts if len(parts) > 1 else []


def near_names(text: str, names: Iterable[tuple[str, str]]) -> list[str]:
    """Up to three names that the text may stand for. ``names``: folded and written."""
    wanted = folded(text)[:80]
    written = dict(names)
    found = [
        name
        for name in written
        if len(min(name, wanted, key=len)) >= 4 and (name.startswith(wanted) or (len(name) > 4 and name in wanted))
    ]
    found += difflib.get_close_matches(wanted, written, n=3, cutoff=0.78)
    return list(dict.fromkeys(written[name] for name in found))[:3]
