"""Algorithm 2 of the paper, gene by gene as printed. Slow; the reference for the fast implementation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scpalm.model.network.embedding import GeneEmbedding


def gene_embedding(embedding: GeneEmbedding, gene: int, x: Tensor) -> Tensor:
    """``E_g [N]`` of one gene with value ``x`` (a scalar)."""
    r = F.leaky_relu(x * embedding.scale[gene])
    value = embedding.gate[gene] * r + embedding.value_map(r)
    return embedding.read_out(torch.cat([value, embedding.identity[gene]]))


def literal_read_out(embedding: GeneEmbedding, x: Tensor, measured: Tensor) -> Tensor:
    """``f [N]`` of one cell, pooled as the embedding does: x ``[G]`` log1p CP10K, measured ``[G]`` bool.

    Genes that were not measured say nothing.
    """
    genes = torch.nonzero(measured)[:, 0].tolist()
    expressed = [gene_embedding(embedding, gene, x[gene]) for gene in genes if x[gene] > 0]
    zeros = [gene_embedding(embedding, gene, x[gene]) for gene in genes if x[gene] == 0]
    pooled = [torch.stack(zeros).mean(0)] if zeros else []
    embeddings = torch.stack([*expressed, *pooled])
    return embeddings.sum(0) if embedding.pooling == "sum" else embeddings.mean(0)
