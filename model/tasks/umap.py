"""A map of the cells, and clusters of them: UMAP and Leiden on the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field

from scpalm.model.adapter.adapter import OpenAdapter, adapter_of
from scpalm.model.bundle import Bundle
from scpalm.model.layout.layout import MOST_CELLS, LayoutOptions
from scpalm.model.layout.process import LayoutProcess
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.answer import TaskAnswer
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import BoundTask, OutputSpec, Recipe, Task, TaskContext, TaskOptions, Values


class UmapOptions(TaskOptions):
    """How fine the clusters are."""

    resolution: float = Field(1.0, description="Resolution of the Leiden clusters: higher gives more.", gt=0, le=20)


class MapNote(BaseModel):
    """How the map and the clusters were made."""

    layout: str
    clusters: str
    resolution: float
    seed: int
    most_cells_laid_out: int


class UmapAnswer(TaskAnswer):
    """Positions on the map, and clusters."""

    example: ClassVar[Mapping[str, Any]] = {
        "columns": ["1", "2"],
        "shape": [2, 2],
        "values": [[2.45, -1.3], [-4.1, 0.82]],
        "cluster": ["0", "1"],
        "map": {"layout": "UMAP", "clusters": "Leiden", "resolution": 1.0, "seed": 0, "most_cells_laid_out": 20_000},
    }

    cluster: list[str] = Field(description="Cluster of each cell.")
    map: MapNote


class Umap(BoundTask):
    """Positions ``[B, 2]`` float32 and clusters ``[B, 1]`` int32.

    All cells are needed for both, so `run` keeps the embedding as a hidden output and `conclude` does the work.
    """

    name = "umap"
    needs_tokens = False
    concludes = True

    def __init__(self, info: SessionInfo, options: LayoutOptions, adapter: OpenAdapter | None = None) -> None:
        self._adapter = adapter
        self._options = options
        self._process = LayoutProcess(options, progress=self._set_share)
        width = info.embedding_width if adapter is None else adapter.adapter.width
        self.outputs = (
            OutputSpec("umap", "X_scpalm_umap", 2, columns=("1", "2")),
            OutputSpec("umap_cluster", "scpalm_cluster", 1, np.int32, columns=("cluster",), placement="obs"),
            OutputSpec("umap_embedding", "X_scpalm_umap_embedding", width, hidden=True),
        )

    def _set_share(self, share: float) -> None:
        self.share_concluded = share

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        embedding = encoded.embedding
        if self._adapter is not None:
            embedding = self._adapter.apply(encoded.rows, embedding)
        return {
            "umap": np.zeros((len(encoded), 2), np.float32),
            "umap_cluster": np.zeros((len(encoded), 1), np.int32),
            "umap_embedding": embedding,
        }

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        """Raises LayoutError."""
        layout = self._process.compute(values["umap_embedding"].astype(np.float32, copy=False))
        names = tuple(map(str, range(int(layout.clusters.max()) + 1)))
        positions, cluster, embedding = self.outputs
        self.outputs = (positions, replace(cluster, categories=names), embedding)
        return {"umap": layout.positions, "umap_cluster": layout.clusters[:, None]}

    def stop(self) -> None:
        self._process.stop()

    def metadata(self) -> dict[str, object]:
        return {
            "map": {
                "layout": "UMAP of the embedding, 15 neighbours, min_dist 0.5, started from two principal components",
                "clusters": "Leiden, modularity, on the same neighbours",
                "resolution": self._options.resolution,
                "seed": self._options.seed,
                "most_cells_laid_out": MOST_CELLS,
            }
        }

    def recipe(self, first: int, num_rows: int) -> Recipe:
        return Recipe(first, {"resolution": self._options.resolution})


@register
class UmapTask(Task[UmapOptions]):
    """A map and clusters."""

    name = "umap"
    summary = (
        "A two-dimensional map of the cells (UMAP of the embedding) and Leiden clusters. Both depend on all cells of "
        f"the request. Of more than {MOST_CELLS:,} cells, a sample is laid out, and the others are placed next to "
        "their neighbours in it."
    )
    result = "Positions, in h5ad `obsm['X_scpalm_umap']`; the cluster of each cell, in h5ad `obs['scpalm_cluster']`."
    options = UmapOptions
    answer = UmapAnswer
    tensors: ClassVar[Mapping[str, str]] = {"umap": "umap", "umap_cluster": "cluster"}

    def bind(self, options: UmapOptions, context: TaskContext) -> BoundTask:
        return Umap(context.info, LayoutOptions(options.resolution), adapter_of(context.bundle))

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        return Umap(info, LayoutOptions(float(recipe.settings["resolution"])), adapter_of(bundle))
