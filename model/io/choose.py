"""Which matrix of a file to read if the user names none: the one that holds the counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matching.names import plain

SAMPLE_VALUES = 20_000
_MOST_LAYERS = 30
# X is a selection of the genes of raw, such as the variable ones, if it has at most this many and this share of them.
_MOST_SELECTED, _SELECTED_SHARE = 8_000, 0.5
_COUNT_NAMES = re.compile(
    r"(?:raw|umi|gene|rna|cell|soupx|cellbender|corrected)?[ _.-]*(?:raw|umis?|counts?|reads)\d*\Z"
)
_NORMAL_NAMES = re.compile(r".*(?:log|norm|data|cp10k|cpm|tpm).*")
# Counts of a part of each cell's RNA.
_PARTS = re.compile(r".*(?:spliced|ambiguous|velocity|intron|exon|imputed|denoised|scaled?|magic|scvi).*")
_TOTALS = (
    *("totalcounts", "ncountrna", "ncounts", "totalumis", "totalumi", "numi", "numis", "ncount", "ncountumi"),
    *("umicount", "umicounts"),
)


class Matrices(Protocol):
    """The matrices of a file."""

    def matrix_names(self) -> Sequence[str]:
        """``X`` and ``raw``, if there are any, and the names of the layers."""
        ...

    def sample(self, name: str) -> NDArray[np.generic] | None:
        """Some stored values of a matrix, or None if it is not there or holds no numbers."""
        ...

    def num_columns(self, name: str) -> int | None:
        """Number of columns of a matrix, or None if it is not there."""
        ...


def choose_matrix(file: Matrices) -> tuple[str, str]:
    """The name of the matrix to read, and why, if it is not X.

    raw is read if X and the layers have only a selection of its genes: over a selection, the sum of a cell says nothing
    about the cell. Otherwise X is read if it holds counts; else a layer of counts or raw, if that holds counts; else X,
    unless it has negative values and another matrix does not.
    """
    if why := _whole_in_raw(file):
        return "raw", why
    of_x = file.sample("X")
    if _are_counts(of_x):
        return "X", ""
    names = [name for name in file.matrix_names() if name != "X"][:_MOST_LAYERS]
    layers = [name for name in names if _COUNT_NAMES.match(name.lower()) and not _PARTS.match(name.lower())]
    # raw comes after the layer that is called counts, and before others.
    ordered = sorted(layers, key=lambda name: (name.lower() != "counts", name != "raw"))
    for name in ordered:
        if _are_counts(file.sample(name)):
            found = "is empty" if of_x is None else "holds no counts"
            return name, f"X {found}, but {describe(name)} does"
    if of_x is not None and not _are_unusable(of_x):
        return "X", ""
    for name in ordered + [
        name for name in names if _NORMAL_NAMES.match(name.lower()) and not _PARTS.match(name.lower())
    ]:
        values = file.sample(name)
        if values is not None and len(values) and not _are_unusable(values):
            return name, f"X {'is empty' if of_x is None else 'is scaled or binary'}, but {describe(name)} is not"
    return "X", ""


def _whole_in_raw(file: Matrices) -> str:
    """Why raw is read although other matrices could be: it has the genes that they lack. "" if it is not so."""
    in_x, in_raw = file.num_columns("X"), file.num_columns("raw")
    if not in_x or not in_raw or in_x > min(_MOST_SELECTED, _SELECTED_SHARE * in_raw):
        return ""
    values = file.sample("raw")
    if values is None or not len(values) or _are_unusable(values):
        return ""
    return f"X and the layers have {in_x:,} of the {in_raw:,} columns of raw.X"


def describe(name: str) -> str:
    """A matrix in words."""
    return {"X": "X", "raw": "raw.X"}.get(name, f"layers['{name}']")


def totals_column(names: Sequence[str]) -> str | None:
    """The column of ``obs`` that may hold each cell's total count, or None."""
    found = {plain(name): name for name in reversed(names)}
    return next((found[name] for name in _TOTALS if name in found), None)


def _are_counts(values: NDArray[np.generic] | None) -> bool:
    if values is None or not len(values) or values.dtype.kind == "b":
        return False
    numbers = values.astype(np.float64)
    return bool(numbers.min() >= 0 and numbers.max() > 1 and (numbers == np.rint(numbers)).all())


def _are_unusable(values: NDArray[np.generic]) -> bool:
    """Booleans, one value only, or negative values."""
    if values.dtype.kind == "b":
        return True
    numbers = values.astype(np.float64)
    stored = numbers[numbers != 0]
    return bool(len(stored) > 200 and stored.max() == stored.min()) or bool(len(stored) and np.nanmin(stored) < 0)
