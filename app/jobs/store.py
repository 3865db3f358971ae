"""Results of a job: one zarr array a task, written chunk by chunk, each chunk whole before the ledger points at it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scpalm.app.codecs.registry import Answer, Part
from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.places import Place
from scpalm.app.parsing.child import Opened
from scpalm.app.storage.values import StoredValues, Table
from scpalm.app.tasks.task import Task, Values, told_of
from scpalm.model.genes.normalize import InputReport
from scpalm.model.genes.vocabulary import Coverage

# zarr is imported where it is used: it takes a second, and most services run for days without a job.
CHUNK_ROWS = 2048


class JobStore:
    """The files of one job."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def open(self, tasks: Sequence[Task], opened: Opened) -> None:
        """Make room for the results, unless an earlier attempt has."""
        import zarr

        num_cells = opened.num_cells
        facts = {
            "num_cells": num_cells,
            "coverage": opened.coverage.as_dict(),
            "target": opened.target.tolist(),
            "extras": dict(opened.extras),
            # The model may be gone when the result is fetched.
            "parts": [_described(task) for task in tasks],
            "about": told_of(tasks),
        }
        self._write("facts.json", facts)
        for task in tasks:
            if not self._place.has(f"{task.name}.zarr/zarr.json"):
                zarr.create_array(
                    self._place.array(f"{task.name}.zarr"),
                    shape=(num_cells, task.width),
                    chunks=(min(CHUNK_ROWS, num_cells), task.width),
                    dtype=np.dtype(task.dtype),
                )

    def put(self, number: int, values: dict[str, Values | StoredValues], cells: list[str], report: InputReport) -> None:
        """Chunk ``number``: rows from ``number * CHUNK_ROWS`` on."""
        import zarr

        for name, table in values.items():
            start = number * CHUNK_ROWS
            array = zarr.open_array(self._place.array(f"{name}.zarr"), mode="r+")
            # A whole chunk at once: a part of one would be read, changed and written again.
            block = table.read(0, table.shape[0]) if isinstance(table, StoredValues) else table
            array[start : start + len(block)] = block
        self._write(f"cells-{number:06d}.json", {"cells": cells, "input": report.as_dict()})
        self._place.sync()

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._place.read("facts.json"))
        return facts

    def read(self, model: tuple[str, str], scratch: Path) -> Answer:
        """Everything, large values as files in ``scratch``. ``model``: name and version. Raises JobStorageError."""
        facts = self._facts()
        if "parts" not in facts:
            raise JobStorageError("The result was written by another release. Send the job again.")
        parts = [self._part(described, facts["num_cells"], scratch) for described in facts["parts"]]
        chunks = [json.loads(self._place.read(name)) for name in self._place.names("cells-")]
        report = InputReport(chunks[0]["input"]["detected"], chunks[0]["input"]["why"])
        cells = [cell for chunk in chunks for cell in chunk["cells"]]
        return Answer(*model, cells, parts, _coverage(facts), report, facts["about"])

    def _part(self, described: dict[str, Any], num_cells: int, scratch: Path) -> Part:
        import zarr

        array = zarr.open_array(self._place.array(f"{described['name']}.zarr"), mode="r")
        dtype = np.float32 if array.dtype == np.float32 else np.int32
        table = Table((num_cells, array.shape[1]), dtype, scratch)
        for start in range(0, num_cells, CHUNK_ROWS):
            table.put(start, np.asarray(array[start : start + CHUNK_ROWS]))
        columns = described["var_columns"]
        return Part(
            described["name"],
            described["key"],
            table.finish(),
            described["columns"],
            described["place"],
            None if columns is None else np.array(columns, np.int64),
        )

    def _write(self, name: str, content: dict[str, object]) -> None:
        self._place.write(name, json.dumps(content, default=np.ndarray.tolist).encode())


def _described(task: Task) -> dict[str, object]:
    columns = None if task.columns is None else list(task.columns)
    return {
        "name": task.name,
        "key": task.key,
        "columns": columns,
        "place": task.place,
        "var_columns": None if task.var_columns is None else task.var_columns.tolist(),
    }


def _coverage(facts: dict[str, Any]) -> Coverage:
    return Coverage(**{**facts["coverage"], "unmatched": tuple(facts["coverage"]["unmatched"])})
