"""Writes results into an AnnData in memory, under the same keys as in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from scpalm.model.output.note import NOTE_KEY, anndata_note
from scpalm.model.tasks.task import OutputSpec, Values


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
        self._values: dict[str, Any] = {}
        for output in outputs:
            width = output.width if output.var_columns is None else len(output.var_columns)
            self._values[output.name] = np.empty((num_cells, width), dtype=output.dtype)

    def put(self, start: int, values: Mapping[str, Values]) -> None:
        """Store the values of the cells from ``start`` on."""
        for output in self._outputs:
            part = output.spread(values[output.name])
            self._values[output.name][start : start + len(part)] = part

    def write_into(self, adata: AnnData, note: Mapping[str, object]) -> None:
        """Add the values and the note (JSON in ``uns["scpalm"]``, as in an h5ad response)."""
        for output in self._outputs:
            getattr(adata, output.placement)[self._keys[output.name]] = self._values[output.name]
        adata.uns[NOTE_KEY] = json.dumps(anndata_note(note, self._outputs, self._keys), default=list)
