"""The stage-1 decoder of a bundle: pathway codes -> expected log1p CP10K of every gene."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.network.embedding import SparseCells, pool
from scpalm.model.network.pathways import GeneHead
from scpalm.model.network.transformer import Transformer
from scpalm.model.sessions.base import network_config
from scpalm.model.sessions.torchscript import load_network

BATCH = 256


class Decoder(nn.Module):
    """Code tokens ``[B, N, D]`` -> ``o [B, G]``, the expected log1p CP10K of each gene, zeros included."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError for a bundle without a decoder."""
        super().__init__()
        config = network_config(bundle)
        self.position = nn.Parameter(torch.zeros(config.num_tokens, config.width))
        self.transformer = Transformer(config.width, config.num_layers, config.num_heads, config.norm)
        self.head = GeneHead(config.num_genes, config.num_tokens, config.width, shared=config.head == "shared")
        weights = load_file(str(bundle.file("weights.safetensors")))
        try:
            for module, prefix in ((self.transformer, "decoder."), (self.head, "head.")):
                own = {k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)}
                module.load_state_dict(own)
            self.position.data.copy_(weights["decoder_position"])
        except (KeyError, RuntimeError) as error:
            raise BundleError(
                f"{bundle.path} has no stage-1 decoder that fits its network. Export it again."
            ) from error
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.transformer(tokens + self.position))


class DecodedCells:
    """Passes the cells of a file through encoder, codes and decoder.

    Attributes:
        columns: ``[genes]`` vocabulary position of each column of the file, -1 where the model does not know the gene.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.vocabulary = bundle.vocabulary
        self._network = load_network(bundle)
        self._decoder = Decoder(bundle)

    def columns(self, matrix: CellMatrix) -> NDArray[np.int64]:
        """``[genes]`` vocabulary position of each column, -1 where the model does not know the gene."""
        return np.asarray(self.vocabulary.align(matrix.genes, matrix.ensembl_ids).target, dtype=np.int64)

    def blocks(self, matrix: CellMatrix) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """For each block of cells: its rows, ``h_C [b, D]`` and ``o [b, G]`` clipped at 0. Raises InputError."""
        yield from self.blocks_of_rows(prepare(matrix, self.vocabulary, "counts").rows)

    @torch.no_grad()
    def blocks_of_rows(self, rows: Rows) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """As ``blocks``, for prepared rows."""
        sets = torch.from_numpy(np.stack([each.measured for each in rows.gene_sets]))
        for start in range(0, len(rows), BATCH):
            part = rows.slice(start, min(start + BATCH, len(rows)))
            cells = SparseCells(
                torch.from_numpy(part.gene_index.astype(np.int64)),
                torch.from_numpy(part.value.copy()),
                torch.from_numpy(part.indptr[:-1].astype(np.int64)),
                sets[torch.from_numpy(part.gene_set_of_row.astype(np.int64))],
            )
            network = self._network
            tokens = network.code_tokens[network.nearest(pool(cells, network.slope, network.offset, network.pooling))]
            h, o = network.cell_encoder.embed(tokens), self._decoder(tokens).clamp(min=0)
            yield slice(start, start + len(part)), h.numpy(), o.numpy()
