"""Tiny training data: 120 genes, three kinds of cells, files with different genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.decoder import CellDecoder
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import ViewHead
from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.source import CorpusOptions
from scpalm.training.runs.config import Stage1Config, Stage2Config, as_dict
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.run import Run
from scpalm.training.runs.views_config import ViewsConfig

NUM_GENES = 120
SIZES = NetworkConfig(
    num_genes=NUM_GENES,
    num_tokens=8,
    width=16,
    num_layers=2,
    num_heads=2,
    num_codes=16,
    gene_width=16,
    code_width=4,
    components=12,
    view_width=4,
    view_hidden=8,
)
CPU = torch.device("cpu")


def tiny_vocabulary(num_genes: int = NUM_GENES) -> Vocabulary:
    numbers = range(num_genes)
    return Vocabulary([f"ENSG{i:011d}" for i in numbers], [f"GENE{i}" for i in numbers], [[f"OLD{i}"] for i in numbers])


def tiny_counts(cells: int, *, seed: int, num_genes: int = NUM_GENES) -> NDArray[np.float32]:
    """``[cells, genes]`` counts of three kinds of cells that differ in a third of the genes each."""
    random = np.random.default_rng(seed)
    base = np.random.default_rng(99).gamma(1.0, 2.0, num_genes)
    kind = random.integers(3, size=cells)
    rate = base * np.where(np.arange(num_genes) % 3 == kind[:, None], 6.0, 0.5)
    depth = random.uniform(0.5, 2.0, (cells, 1))
    return random.poisson(rate * depth).astype(np.float32)


def write_h5ad(
    path: Path,
    counts: NDArray[np.float32],
    genes: Sequence[str] | None = None,
    obs: Mapping[str, Sequence[object]] | None = None,
) -> Path:
    cells = AnnData(sparse.csr_matrix(counts))
    cells.obs_names = [f"{path.stem}-{i}" for i in range(counts.shape[0])]
    cells.var_names = list(genes) if genes is not None else [f"GENE{i}" for i in range(counts.shape[1])]
    for name, values in (obs or {}).items():
        cells.obs[name] = list(values)
    cells.write_h5ad(path)
    return path


def write_two_files(folder: Path) -> list[Path]:
    """200 cells of all genes, and 100 cells of two thirds of them in another order, some of them unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    first = write_h5ad(folder / "first.h5ad", tiny_counts(200, seed=1), obs={"tissue": ["blood"] * 200})
    order = np.random.default_rng(5).permutation(NUM_GENES)[:80]
    names = [f"GENE{i}" if i % 2 else f"ENSG{i:011d}.7" for i in order]
    counts = np.hstack([tiny_counts(100, seed=2)[:, order], np.ones((100, 2), np.float32)])
    second = write_h5ad(folder / "second.h5ad", counts, [*names, "unknown-1", "unknown-2"], {"tissue": ["skin"] * 100})
    return [first, second]


def write_corpus(folder: Path) -> Path:
    """A corpus of the two files under ``folder``, with a fifth of the cells held out."""
    files = write_two_files(folder / "files")
    build_corpus(folder / "corpus", files, tiny_vocabulary(), CorpusOptions(held_out=0.2, shard_cells=128))
    return folder / "corpus"


def write_random_run(folder: Path, corpus: Path) -> Path:
    """A run of random weights that is marked as finished."""
    torch.manual_seed(0)
    stage1, cells = PathwayAutoencoder(SIZES), CellEncoder(SIZES)
    with torch.no_grad():
        # Statistics as after training: read-outs and encoder outputs have mean near 0 and variance near 1.
        batch = Corpus(corpus).batch(np.arange(100))
        stage1.train()
        for _ in range(100):
            stage1(batch)
    run = Run(folder)
    run.create(
        {
            "preset": "mini",
            "corpus": str(corpus),
            "network": SIZES.as_dict(),
            "stage1": as_dict(Stage1Config()),
            "stage2": as_dict(Stage2Config()),
            "views": as_dict(ViewsConfig()),
            "decoder": as_dict(DecoderConfig()),
        }
    )
    run.save_checkpoint("stage1", {"step": Stage1Config().steps, "model": stage1.state_dict()})
    run.save_checkpoint("stage2", {"step": Stage2Config().steps, "encoder": cells.state_dict()})
    head = ViewHead(SIZES.components, SIZES.view_width, SIZES.view_hidden)
    run.save_checkpoint("views", {"step": ViewsConfig().steps, "head": head.state_dict()})
    decoder = CellDecoder(SIZES)
    decoder.start(stage1)
    run.save_checkpoint("decoder", {"step": DecoderConfig().steps, "decoder": decoder.state_dict()})
    return folder
