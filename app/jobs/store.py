"""Store the results of a job chunk by chunk. A chunk is committed to the ledger only after it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.errors import JobStorageError
from scpalm.app.execution.conclusion import conclude
from scpalm.app.jobs.files import JobFiles
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.parsing.wire import describe_output, read_output
from scpalm.app.storage.values import SpooledArray
from scpalm.model.bundle import Identity
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.output.note import note_of
from scpalm.model.spec import metadata_of, outputs_of, visible
from scpalm.model.tasks.task import BoundTask, OutputSpec, Values

# zarr is imported inside the methods, because the import takes a second and most services rarely run jobs.
CHUNK_ROWS = 2048
# 1: one part per result. 2: a description of each output. 3: all of the input report.
VERSION = 3
_OTHER_RELEASE = "The result was written by another release. Send the job again."


class JobStore:
    """The results of one job: a zarr array per output, and JSON files. All methods block."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files

    def open(self, tasks: Sequence[BoundTask], head: UploadHead) -> None:
        """Create the arrays, unless an earlier attempt has created them."""
        import zarr

        facts = {
            "version": VERSION,
            "num_cells": head.num_cells,
            "coverage": head.coverage.as_dict(),
            # Store these descriptions, because the model may be gone when the result is fetched.
            "outputs": _described(tasks),
            "metadata": metadata_of(tasks),
        }
        self._write("facts.json", facts)
        for output in outputs_of(tasks):
            if not self._files.has(f"{output.name}.zarr/zarr.json"):
                with self._files.guarded():
                    zarr.create_array(
                        self._files.zarr_store(f"{output.name}.zarr"),
                        shape=(head.num_cells, output.width),
                        chunks=(min(CHUNK_ROWS, head.num_cells), output.width),
                        dtype=np.dtype(output.dtype),
                    )

    def put(self, number: int, outputs: Sequence[OutputValues], cells: list[str], report: InputReport) -> None:
        """Write chunk ``number``, which starts at row ``number * CHUNK_ROWS``."""
        import zarr

        for output in outputs:
            start = number * CHUNK_ROWS
            # Write the whole chunk at once; zarr would have to read and rewrite a partial one.
            block = output.load()
            with self._files.guarded():
                array = zarr.open_array(self._files.zarr_store(f"{output.spec.name}.zarr"), mode="r+")
                array[start : start + len(block)] = block
        self._write(f"cells-{number:06d}.json", {"cells": cells, "input": asdict(report)})
        self._files.sync()

    def conclude(self, tasks: Sequence[BoundTask]) -> None:
        """Replace the outputs that a task concludes from the values of all cells. May be repeated.

        Raises InferenceError.
        """
        import zarr

        for task in tasks:
            if not task.concludes:
                continue
            with self._files.guarded():
                arrays = {
                    spec.name: zarr.open_array(self._files.zarr_store(f"{spec.name}.zarr"), mode="r+")
                    for spec in task.outputs
                }
                whole = {name: np.asarray(array[:]) for name, array in arrays.items()}
            found = conclude(task, whole)
            with self._files.guarded():
                for name, values in found.items():
                    arrays[name][:] = values
            self._write("facts.json", self._facts() | {"outputs": _described(tasks), "metadata": metadata_of(tasks)})
            self._files.sync()

    def describe(self, model: Identity) -> dict[str, Any]:
        """Number of cells, outputs, coverage and metadata; ``model`` as for `read`. Raises JobStorageError."""
        facts = self._facts()
        chunk = json.loads(self._files.read(self._files.names("cells-")[0]))
        report = TypeAdapter(InputReport).validate_python(chunk["input"])
        coverage = TypeAdapter(Coverage).validate_python(facts["coverage"])
        return {**facts, "note": note_of(model, coverage, report, facts["metadata"])}

    def output(self, name: str) -> tuple[OutputSpec, Values] | None:
        """One output, in memory; None if there is none of that name. Raises JobStorageError."""
        import zarr

        for described in self._facts()["outputs"]:
            if described["name"] == name:
                with self._files.guarded():
                    array = zarr.open_array(self._files.zarr_store(f"{name}.zarr"), mode="r")
                    return read_output(described, None), cast(Values, np.asarray(array[:]))
        return None

    def read(self, model: Identity, scratch: Path) -> Result:
        """Read the complete result. ``model``: name, version and checksum; large values become files in ``scratch``.

        Raises JobStorageError if another release wrote the result.
        """
        facts = self._facts()
        outputs = tuple(self._output(described, facts["num_cells"], scratch) for described in facts["outputs"])
        chunks = [json.loads(self._files.read(name)) for name in self._files.names("cells-")]
        report = TypeAdapter(InputReport).validate_python(chunks[0]["input"])
        coverage = TypeAdapter(Coverage).validate_python(facts["coverage"])
        cells = [cell for chunk in chunks for cell in chunk["cells"]]
        return Result(cells, outputs, note_of(model, coverage, report, facts["metadata"]))

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._files.read("facts.json"))
        if facts.get("version") != VERSION:
            raise JobStorageError(_OTHER_RELEASE)
        return facts

    def _output(self, described: dict[str, Any], num_cells: int, scratch: Path) -> OutputValues:
        import zarr

        columns = described["var_columns"]
        spec = read_output(described, None if columns is None else np.array(columns, np.int64))
        table = SpooledArray((num_cells, spec.width), spec.dtype, scratch)
        with self._files.guarded():
            array = zarr.open_array(self._files.zarr_store(f"{spec.name}.zarr"), mode="r")
            for start in range(0, num_cells, CHUNK_ROWS):
                table.put(start, np.asarray(array[start : start + CHUNK_ROWS]))
        return OutputValues(spec, table.finish())

    def _write(self, name: str, content: dict[str, object]) -> None:
        self._files.write(name, json.dumps(content, default=np.ndarray.tolist).encode())


def _described(tasks: Sequence[BoundTask]) -> list[dict[str, Any]]:
    """The outputs of a result, as JSON."""
    return [
        {
            **describe_output(output),
            "var_columns": None if output.var_columns is None else output.var_columns.tolist(),
        }
        for output in visible(outputs_of(tasks))
    ]
