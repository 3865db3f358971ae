"""Writes results into an AnnData in memory, under the same keys as in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from scpalm.model.output.note import NOTE_KEY, anndata_note, keep_columns
from scpalm.model.tasks.task import BoundTask, OutputSpec, Values


class AnnDataWriter:
    """Collects the values of all cells. `write_into` adds them all at once, so that a failed run changes nothing.

    ``key_added``: key of the main output. The keys of other outputs become ``{key_added}_{name}``.
    """

    def __init__(self, outputs: Sequence[OutputSpec], num_cells: int, key_added: str | None = None) -> None:
        self._outputs = outputs
        self._keys = {output.name: output.key for output in outputs}
        if key_added is not None:
            self._keys = {output.name: f"{key_added}_{output.name}" for output in outputs}
            self._keys[outputs[0].name] = key_added
            # Columns of obs come in groups: there, the key is the prefix of all of them.
            columns = {
                output.name: output.columns[0] for output in outputs if output.placement == "obs" and output.columns
            }
            self._keys |= {name: f"{key_added}_{column}" for name, column in columns.items()}
        self._values: dict[str, Any] = {}
        for output in outputs:
            width = output.width if output.var_columns is None else len(output.var_columns)
            self._values[output.name] = np.empty((num_cells, width), dtype=output.dtype)

    def put(self, start: int, values: Mapping[str, Values]) -> None:
        """Store the values of the cells from ``start`` on."""
        for output in self._outputs:
            part = output.spread(values[output.name])
            self._values[output.name][start : start + len(part)] = part

    def conclude(self, tasks: Sequence[BoundTask]) -> None:
        """Add what the tasks conclude from the values of all cells."""
        for task in tasks:
            if task.concludes:
                self._values |= task.conclude({output.name: self._values[output.name] for output in task.outputs})
        self._outputs = [output for task in tasks for output in task.outputs if not output.hidden]

    def write_into(self, adata: AnnData, note: Mapping[str, object]) -> None:
        """Add the values, and the note as ``uns["scpalm"]``, as in an h5ad response."""
        for output in self._outputs:
            values, key = self._values[output.name], self._keys[output.name]
            getattr(adata, output.placement)[key] = obs_column(output, values) if output.placement == "obs" else values
        written = anndata_note(note, self._outputs, self._keys)
        keep_columns(written, adata.uns.get(NOTE_KEY, {}))
        adata.uns[NOTE_KEY] = written

    def write_groups_into(self, adata: AnnData, note: Mapping[str, object], key: str, groups: Sequence[str]) -> None:
        """Add the values of groups of cells as ``uns[key]``: ``groups``, the columns, and each output by name.

        The columns of the main output are stored as ``drugs`` for ``ic50``.
        """
        table: dict[str, object] = {"groups": np.array(groups, dtype=object)}
        for output in self._outputs:
            values = self._values[output.name]
            table[output.name] = values if output.categories is None else output.texts(values)[:, 0]
        table["drugs"] = np.array(self._outputs[0].columns or (), dtype=object)
        table["note"] = anndata_note(note, self._outputs)
        adata.uns[key] = table


def obs_column(output: OutputSpec, values: Values) -> Any:
    """A column of ``obs`` from values ``[B, 1]``: categorical for outputs with categories."""
    import pandas as pd

    if output.categories is None:
        return values[:, 0]
    return pd.Categorical.from_codes(values[:, 0], categories=list(output.categories))
