"""What an h5ad file has for a picture of its cells: columns, maps and the colours of categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.access import find, read_strings
from scpalm.model.io.hdf5.frame import Frame

_SUFFIX = "_colors"
_MOST_COLOURED = 200  # columns
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, eq=False)
class ViewFacts:
    """What a file has for a picture of its cells.

    Attributes:
        columns: names of the columns of ``obs``.
        maps: two-dimensional maps ``[B, 2]`` by name.
        colors: by column, the colour of each category as ``#rrggbb``: scanpy keeps them in ``uns["<column>_colors"]``.
    """

    columns: Sequence[str] = ()
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    colors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def colors_of(file: h5py.File, obs: Frame, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colours of categories by column of ``obs``. Columns whose colours do not fit the categories are left out."""
    found: dict[str, dict[str, str]] = {}
    for name in columns[:_MOST_COLOURED]:
        node = find(file, f"uns/{name}{_SUFFIX}")
        if not isinstance(node, h5py.Dataset) or node.ndim != 1 or not 0 < node.size <= _MOST_COLOURED:
            continue
        try:
            categories, colors = obs.categories_of(name), read_strings(node, f"uns/{name}{_SUFFIX}")
        except InputError:  # a picture without these colours is better than none
            continue
        # matplotlib writes #rrggbb or #rrggbbaa.
        short = [str(color)[:7] for color in colors]
        if categories is not None and len(categories) == len(short) and all(map(_HEX.fullmatch, short)):
            found[name] = dict(zip(categories, short, strict=True))
    return found
