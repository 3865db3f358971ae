"""Results of a job: one zarr array a task, written chunk by chunk, each chunk whole before the ledger points at it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.parser_process import Opened
from app.tasks import Task, Values
from app.values import StoredValues, Table
from model.genes import Coverage
from model.normalize import InputReport

# zarr is imported where it is used: it takes a second, and most services run for days without a job.
CHUNK_ROWS = 2048


class JobStore:
    """The folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, tasks: Sequence[Task], opened: Opened) -> None:
        """Make room for the results, unless an earlier attempt has."""
        import zarr

        num_cells = opened.num_cells
        facts = {
            "num_cells": num_cells,
            "coverage": opened.coverage.as_dict(),
            "target": opened.target.tolist(),
            "extras": dict(opened.extras),
        }
        self._write("facts.json", facts)
        for task in tasks:
            if not (self.folder / f"{task.name}.zarr").exists():
                zarr.create_array(
                    str(self.folder / f"{task.name}.zarr"),
                    shape=(num_cells, task.width),
                    chunks=(min(CHUNK_ROWS, num_cells), task.width),
                    dtype=np.dtype(task.dtype),
                )

    def put(self, number: int, values: dict[str, Values | StoredValues], cells: list[str], report: InputReport) -> None:
        """Chunk ``number``: rows from ``number * CHUNK_ROWS`` on."""
        import zarr

        for name, table in values.items():
            start = number * CHUNK_ROWS
            array = zarr.open_array(str(self.folder / f"{name}.zarr"), mode="r+")
            # A whole chunk at once: a part of one would be read, changed and written again.
            block = table.read(0, table.shape[0]) if isinstance(table, StoredValues) else table
            array[start : start + len(block)] = block
        self._write(f"cells-{number:06d}.json", {"cells": cells, "input": report.as_dict()})
        _sync(self.folder)

    def facts(self) -> Opened:
        """What was known of the upload before its cells were read."""
        facts = json.loads((self.folder / "facts.json").read_text())
        coverage = Coverage(**{**facts["coverage"], "unmatched": tuple(facts["coverage"]["unmatched"])})
        return Opened(facts["num_cells"], coverage, np.array(facts["target"], dtype=np.int32), facts["extras"])

    def read(
        self, tasks: Sequence[Task], scratch: Path
    ) -> tuple[dict[str, Values | StoredValues], list[str], InputReport]:
        """Everything, large values as files in ``scratch``."""
        import zarr

        num_cells = self.facts().num_cells
        values = {}
        for task in tasks:
            table = Table((num_cells, task.width), task.dtype, scratch)
            array = zarr.open_array(str(self.folder / f"{task.name}.zarr"), mode="r")
            for start in range(0, num_cells, CHUNK_ROWS):
                table.put(start, np.asarray(array[start : start + CHUNK_ROWS]))
            values[task.name] = table.finish()
        parts = [json.loads(path.read_text()) for path in sorted(self.folder.glob("cells-*.json"))]
        report = InputReport(parts[0]["input"]["detected"], parts[0]["input"]["why"])
        return values, [cell for part in parts for cell in part["cells"]], report

    def _write(self, name: str, content: dict[str, object]) -> None:
        partial = self.folder / f"{name}.partial"
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, default=np.ndarray.tolist)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / name)


def _sync(folder: Path) -> None:
    """Flush every file of a folder to the disk: the ledger points at it next."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
