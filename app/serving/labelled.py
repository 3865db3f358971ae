"""The file of labelled cells of a request: choose cells of it, and embed them through the queue."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.app.execution.execution import Execution
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.queue.transport import Turn
from scpalm.app.serving.model import ServedModel
from scpalm.app.storage.values import ResultSpace
from scpalm.model.annotation.labelled import LabelledCells, choose_cells, naming
from scpalm.model.errors import InputError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.io.labels import Categories, LabelledBy
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import LABELLED_FILE
from scpalm.model.tasks.task import TaskContext


def labelled_upload(path: Path, media_type: str, content_encoding: str, how: LabelledBy) -> Upload:
    """The upload that reads a file of labelled cells."""
    spec = RequestSpec(("embed",), layer=how.layer)
    return Upload(path, media_type, spec, content_encoding, obs_columns=(how.label,))


async def open_labelled(model: ServedModel, upload: Upload) -> LabelledCells:
    """The cells of a file that will be embedded, with zeros in place of the embedding. Nothing is computed.

    Raises InputError that names the file, and the errors of the parser.
    """
    with naming(LABELLED_FILE, LABELLED_FILE):
        head = await model.parsers.head(upload)
        return _chosen(head, np.zeros((head.num_cells, 1), np.float32))


async def embed_labelled(model: ServedModel, upload: Upload, folder: Path, turn: Turn) -> LabelledCells:
    """Embed the chosen cells of a file of labelled cells.

    Args:
        model: the model.
        upload: from `labelled_upload`.
        folder: for files of the request.
        turn: whose turn in the queue it waits for.

    Raises InputError that names the file, and the errors of the parser and the queue.
    """
    with naming(LABELLED_FILE, LABELLED_FILE):
        async with aclosing(model.parsers.parse(upload)) as parts:
            head = await anext(parts)
            assert isinstance(head, UploadHead)
            labels = _labels(head)
            chosen = choose_cells(labels)
            tasks = upload.spec.bind(TaskContext(model.bundle, model.info, len(chosen)))
            start = 0
            space = ResultSpace(folder, model.memory)
            async with Execution(model.transport, tasks, len(chosen), turn, space) as execution:
                async for part in parts:
                    assert isinstance(part, Prepared)
                    stop = start + len(part.rows)
                    inside = chosen[(chosen >= start) & (chosen < stop)] - start
                    if len(inside):
                        await execution.add(part.select(inside))
                    start = stop
                (output,) = await execution.outputs()
    array = output.load().astype(np.float32, copy=False)
    return LabelledCells(array, Categories(labels.names, labels.codes[chosen]))


def _chosen(head: UploadHead, array: NDArray[np.float32]) -> LabelledCells:
    labels = _labels(head)
    chosen = choose_cells(labels)
    return LabelledCells(array[chosen], Categories(labels.names, labels.codes[chosen]))


def _labels(head: UploadHead) -> Categories:
    """The labels. Raises InputError if there is none."""
    (labels,) = head.obs.values()
    if not labels.names:
        (name,) = head.obs
        raise InputError(
            "no-labels",
            f"No cell has a label in the column '{name[:100]}' of obs.",
            hint="Name the column of the labels with reference_label.",
            field=LABELLED_FILE,
        )
    return labels
