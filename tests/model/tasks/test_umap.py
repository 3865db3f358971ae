"""The task umap: a worker computes the embedding, the process of the request the map."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.layout.process import LayoutError
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import TaskContext, Values
from scpalm.model.tasks.umap import Umap, UmapOptions
from tests.model.layout.test_layout import groups

INFO = SessionInfo("onnx", "cpu", 30, 20, 8, 4, 16, 100)
BUNDLE = Bundle(Path("bundle"), {"files": {}})  # without an adapter
SESSION = cast(Session, None)


def bound(resolution: float = 1.0) -> Umap:
    task = tasks()["umap"].bind(UmapOptions(resolution=resolution), TaskContext(BUNDLE, INFO))
    assert isinstance(task, Umap)
    return task


def test_a_worker_gets_the_embedding_only() -> None:
    task = bound(2.0)
    worker = tasks()["umap"].rebuild(BUNDLE, INFO, task.recipe(0, 5))
    embedding, _ = groups(5)
    encoded = Encoded(cast(Rows, None), embedding, np.zeros((5, 1), np.float32), 20, None)
    values = worker.run(SESSION, encoded, 0)
    assert {name: array.shape for name, array in values.items()} == {
        output.name: (5, output.width) for output in task.outputs
    }
    np.testing.assert_array_equal(values["umap_embedding"], embedding)


def test_the_conclusion_can_be_repeated_and_names_the_clusters() -> None:
    task = bound()
    embedding, group = groups(120)
    values: dict[str, Values] = {
        "umap": np.zeros((120, 2), np.float32),
        "umap_cluster": np.zeros((120, 1), np.int32),
        "umap_embedding": embedding,
    }
    once = task.conclude(values)
    again = task.conclude({**values, **once})
    for name, array in once.items():
        np.testing.assert_array_equal(array, again[name])
    names = task.outputs[1].categories
    assert names is not None and len(names) == once["umap_cluster"].max() + 1 == len(set(group.tolist()))
    assert task.share_concluded > 0.9
    assert [output.name for output in task.outputs if output.hidden] == ["umap_embedding"]


def test_a_stopped_task_does_not_conclude() -> None:
    task = bound()
    task.stop()
    with pytest.raises(LayoutError, match="cancelled"):
        task.conclude({"umap_embedding": groups(20)[0]})
