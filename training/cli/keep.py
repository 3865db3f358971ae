"""``--keep column=value``: which cells of the files to use. A name that no file has would keep every cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scpalm.model.errors import InputError, did_you_mean


def pairs_of(keep: Sequence[str] | None) -> dict[str, str]:
    """Column and value of each option. Raises ConfigError."""
    from scpalm.training.runs.config import ConfigError

    pairs: dict[str, str] = {}
    for pair in keep or []:
        column, _, value = pair.partition("=")
        if not column or not value:
            raise ConfigError("--keep takes column=value.")
        if pairs.setdefault(column, value) != value:
            raise ConfigError(f"--keep names '{column}' twice; a cell has one value.")
    return pairs


def check_keep(files: Sequence[Path], keep: Sequence[str] | None) -> dict[str, str]:
    """The pairs, after a look into the files. Raises ConfigError, and InputError.

    At least one file must have each column, and at least one of those files a cell with the value.
    """
    from scpalm.model.io.cells import open_cells
    from scpalm.training.runs.config import ConfigError

    pairs = pairs_of(keep)
    if not pairs:
        return pairs
    found: dict[str, set[str]] = {name: set() for name in pairs}
    known: set[str] = set()
    for path in (path for path in files if path.exists()):
        known |= set(_columns(path))
        with open_cells(path) as cells:
            for name in pairs:
                column = cells.obs_column(name)
                if column is not None:
                    found[name] |= {str(value) for value in np.unique(np.asarray(column).astype(str))}
    for name, value in pairs.items():
        if not found[name]:
            shown = ", ".join(sorted(known)[:20]) or "none"
            raise ConfigError(
                f"--keep: no file has a column '{name}' in obs. {did_you_mean(name, known)}There is: {shown}."
            )
        if value not in found[name]:
            shown = ", ".join(sorted(found[name])[:20])
            raise ConfigError(
                f"--keep: no cell has '{value}' in '{name}'. {did_you_mean(value, found[name])}There is: {shown}."
            )
    return pairs


def _columns(path: Path) -> list[str]:
    """Names of the columns of obs, for messages; none where the file is odd."""
    try:
        group: Any
        if path.is_dir():
            import zarr

            group = zarr.open_group(str(path), mode="r")["obs"]
            return [str(name) for name in group.attrs.get("column-order", ())]
        from scpalm.model.io.hdf5.access import find, open_hdf5

        with open_hdf5(path) as file:
            group = find(file, "obs")
            return [str(name) for name in group.attrs.get("column-order", ())] if group is not None else []
    except (InputError, OSError, KeyError, ValueError, TypeError, AttributeError):
        return []
