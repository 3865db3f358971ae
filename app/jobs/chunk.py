"""One chunk of a job: from its manifest and parsed cells to results."""

from __future__ import annotations

from pathlib import Path

from scpalm.app.execution.computation import Computation, Results
from scpalm.app.jobs.manifest import Manifest
from scpalm.app.parsing.pool import Opened
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.model import Model
from scpalm.app.serving.service import Service
from scpalm.app.storage.values import StoredValues
from scpalm.app.tasks.task import Task
from scpalm.model.genes.prepare import Prepared


async def results_of(
    model: Model, tasks: tuple[Task, ...], parts: list[Prepared], first: int, rows: int, folder: Path
) -> Results:
    """Results of the next ``rows`` cells, of which ``first`` is the first. Raises what queue and model raise."""
    async with Computation(model, tasks, rows, folder, first=first, lane="bulk") as computation:
        for part in parts:
            await computation.add(part)
        return await computation.results()


def upload_of(manifest: Manifest, body: Path, service: Service) -> Upload:
    """The job's body on its way to a parser."""
    return Upload(
        body,
        manifest.media_type,
        manifest.content_encoding,
        manifest.layer,
        manifest.declared,
        service.settings.max_cells,
        service.settings.max_body_bytes,
        extras=manifest.asked.extras,
    )


def tasks_of(manifest: Manifest, model: Model, opened: Opened) -> tuple[Task, ...]:
    """The job's tasks; imputed columns are those of the file when the answer was asked for as h5ad."""
    target = opened.target if manifest.accept == "application/x-hdf5" else None
    return manifest.asked.tasks(model.bundle, model.info, target, opened.extras, opened.num_cells)


def remove_files(results: Results) -> None:
    """Forget what of the results lies in files."""
    for values in results.values.values():
        if isinstance(values, StoredValues):
            values.path.unlink(missing_ok=True)
