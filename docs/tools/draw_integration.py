"""Draw docs/figures/integration.png: cells of several technologies before and after integration.

Usage: python docs/tools/draw_integration.py FILE.h5ad BATCH_COLUMN LABEL_COLUMN
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import umap
from sklearn.decomposition import PCA

import scpalm

OUT = Path(__file__).parents[1] / "figures" / "integration.png"


def main(file: str, batch: str, label: str) -> None:
    """Two rows (technology, cell type) of three maps: PCA, the embedding, integrated."""
    adata = anndata.read_h5ad(file)
    scpalm.tl.embed(adata)
    scpalm.tl.integrate(adata, batch)
    counts = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)
    logs = np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    arrays = {
        "50 principal components": PCA(50, random_state=0).fit_transform(logs),
        "embedding": adata.obsm["X_scpalm"],
        "integrated": adata.obsm["X_scpalm_integrated"],
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained")
    for column, (title, array) in enumerate(arrays.items()):
        places = umap.UMAP(random_state=0, n_jobs=1).fit_transform(array)
        for row, name in enumerate((batch, label)):
            values = adata.obs[name].astype(str)
            for number, value in enumerate(sorted(values.unique())):
                chosen = (values == value).to_numpy()
                axes[row, column].scatter(*places[chosen].T, s=4, color=plt.cm.tab10(number), label=value)
            axes[row, column].set(xticks=[], yticks=[], title=title if row == 0 else "")
    for row, title in enumerate(("technology", "cell type")):
        axes[row, 2].legend(title=title, bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False, markerscale=3)
    figure.savefig(OUT, dpi=70)


if __name__ == "__main__":
    main(*sys.argv[1:4])
