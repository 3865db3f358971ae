"""A picture of an embedding: UMAP, coloured by label and by cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.layout.fuzzy_graph import fuzzy_graph
from scpalm.model.neighbors import nearest
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.metrics.clustering import K, leiden, to_igraph


def draw_umap(array: NDArray[np.floating], dataset: Dataset, out: Path, *, seed: int = 0, title: str = "h_C") -> None:
    """Write a PNG with two panels: the labels of the file, and the Leiden clusters that are scored.

    Args:
        array: ``[cells, width]`` embedding of the cells of ``dataset``, called ``title``. seed: of UMAP and Leiden.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import umap

    clusters = leiden(to_igraph(fuzzy_graph(nearest(array, K), K)), seed)
    points = umap.UMAP(n_neighbors=K, random_state=seed, n_jobs=1).fit_transform(array)
    names = dataset.labels.names
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), constrained_layout=True)
    panels = (
        (axes[0], "label", dataset.labels.codes, [str(name) for name in names]),
        (axes[1], "Leiden cluster, resolution 1.0", clusters, [str(i) for i in range(int(clusters.max()) + 1)]),
    )
    for axis, colour, codes, texts in panels:
        colours = plt.get_cmap("tab20")(np.arange(max(len(texts), 1)) % 20)
        axis.scatter(*points[codes < 0].T, s=2, color="lightgrey", linewidths=0)
        for code, text in enumerate(texts):
            chosen = codes == code
            axis.scatter(*points[chosen].T, s=3, color=colours[code], linewidths=0, label=text)
        axis.set(title=f"{dataset.name}, {title}: {colour}", xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        axis.legend(markerscale=5, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(out, dpi=110)
    plt.close(figure)
