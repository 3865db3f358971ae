"""The trained ensemble members of one setting as NumPy arrays, with batch norm folded. No torch.

Only the ``product`` head has this form: all pairs are one product of small matrices, so cells x drugs cost little
compared with the encoders. Letters: M members, C cells, D drugs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.config import DrugResponseConfig, pooling_share
from scpalm.model.molecules.graph import NUM_FEATURES, MoleculeGraph, batch_graphs

Floats = NDArray[np.float32]
# Cells run in blocks of a fixed size, so that a cell's result does not depend on the number of cells.
CELL_BLOCK = 16
ATOM_BLOCK = 4
# OpenBLAS runs a product of at most this many multiplications on one thread. Larger ones are divided among threads, and
# their rounding depends on how many there are: https://github.com/OpenMathLib/OpenBLAS/blob/v0.3.31/interface/gemm.c
ONE_THREAD = 65536 * 4


@dataclass(frozen=True, eq=False)
class FoldedMembers:
    """M members of the ensemble.

    Attributes:
        config: sizes.
        tensors: ``graph.{i}.weight [M, in, out]``, ``.bias``, ``.scale`` and ``.shift [M, out]`` (batch norm after the
            ReLU); ``pooled.scale``, ``.shift``, ``.low`` and ``.high [M, drug_width]``; ``.weight`` and ``.bias`` of
            ``{branch}.first``, ``{branch}.last``, ``head.cell`` (units of cells), ``head.drug`` (units of training
            drugs) and ``head.new`` (units of other drugs).
    """

    config: DrugResponseConfig
    tensors: Mapping[str, Floats]

    @property
    def num_members(self) -> int:
        return len(self.tensors["head.cell.bias"])

    def check(self) -> None:
        """Raise ValueError if a tensor is missing, has the wrong shape or is not finite."""
        members = self.num_members if "head.cell.bias" in self.tensors else 1
        for name, shape in shapes(self.config).items():
            found = self.tensors.get(name)
            if found is None:
                raise ValueError(f"tensor '{name}' is missing")
            if found.shape != (members, *shape):
                raise ValueError(f"tensor '{name}' has shape {found.shape}, not {(members, *shape)}")
            if not np.isfinite(found).all():
                raise ValueError(f"tensor '{name}' has a value that is not finite")

    def cell_units(self, branches: Sequence[Floats]) -> Floats:
        """Units of cells ``[M, C, units]`` from z-scores ``[C, width]``, one array per branch."""
        cells = len(branches[0])
        encoded = []
        for name, features in zip(self.config.branches, branches, strict=True):
            hidden = np.tanh(self._columns(cell_blocks(features), f"{name}.first"))
            encoded.append(np.maximum(self._columns(hidden, f"{name}.last"), 0))
        units = self._columns(np.concatenate(encoded, axis=-2), "head.cell")
        return np.moveaxis(units, 2, 3).reshape(self.num_members, -1, units.shape[2])[:, :cells]

    def _columns(self, x: Floats, name: str) -> Floats:
        """Dense layer on blocks of cells: ``[M or 1, blocks, in, CELL_BLOCK] -> [M, blocks, out, CELL_BLOCK]``."""
        weight, bias = self.tensors[f"{name}.weight"].transpose(0, 2, 1), self.tensors[f"{name}.bias"]
        step = max(ONE_THREAD // (x.shape[2] * CELL_BLOCK), 1)
        out = np.empty((self.num_members, x.shape[1], bias.shape[1], CELL_BLOCK), dtype=np.float32)
        for start in range(0, bias.shape[1], step):
            np.matmul(weight[:, None, start : start + step], x, out=out[:, :, start : start + step])
        out += bias[:, None, :, None]
        return out

    def drug_units(self, graph: MoleculeGraph, *, new: bool = False) -> Floats:
        """Units of one drug ``[M, units]``. ``new``: it is not a training drug.

        The last layer exists twice. The one for training drugs separates them exactly but extrapolates badly. The one
        for new drugs is smooth.
        """
        batch = batch_graphs([graph])
        adjacency = np.zeros((graph.num_atoms, graph.num_atoms), dtype=np.float32)
        adjacency[batch.row, batch.column] = batch.weight
        share = pooling_share(batch, self.config.pooling)
        x: Floats = np.broadcast_to(batch.features, (self.num_members, *batch.features.shape))
        pooled = [_pool(share, x)]
        for layer in range(len(self.config.graph_widths)):
            x = np.maximum(self._dense(_in_blocks(adjacency[None], x), f"graph.{layer}"), 0)
            x = x * self.tensors[f"graph.{layer}.scale"][:, None] + self.tensors[f"graph.{layer}.shift"][:, None]
            pooled.append(_pool(share, x))
        read = np.concatenate(pooled if self.config.readout == "all" else pooled[-1:], axis=-1)
        scale, shift, low, high = (self.tensors[f"pooled.{name}"] for name in ("scale", "shift", "low", "high"))
        return self._dense(np.clip(read * scale + shift, low, high)[:, None], "head.new" if new else "head.drug")[:, 0]

    def pairs(self, cells: Floats, drugs: Floats) -> Floats:
        """ln IC50 (uM) ``[M, C, D]`` from units of cells ``[M, C, units]`` and of drugs ``[M, D, units]``."""
        # Avoid BLAS, so that the order of summation of a pair does not depend on the other pairs.
        return np.einsum("mcu,mdu->mcd", np.ascontiguousarray(cells), np.ascontiguousarray(drugs), optimize=False)

    def _dense(self, x: Floats, name: str) -> Floats:
        """``[M, rows, in] -> [M, rows, out]``."""
        return _in_blocks(x, self.tensors[f"{name}.weight"]) + self.tensors[f"{name}.bias"][:, None]


def shapes(config: DrugResponseConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor, without the axis of members."""
    out: dict[str, tuple[int, ...]] = {}

    def dense(name: str, width_in: int, width_out: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = (width_in, width_out), (width_out,)

    width = NUM_FEATURES
    for layer, width_out in enumerate(config.graph_widths):
        dense(f"graph.{layer}", width, width_out)
        out[f"graph.{layer}.scale"] = out[f"graph.{layer}.shift"] = (width_out,)
        width = width_out
    for name in ("scale", "shift", "low", "high"):
        out[f"pooled.{name}"] = (config.drug_width,)
    for name in config.branches:
        dense(f"{name}.first", getattr(config, f"{name}_width"), config.hidden_of(name))
        dense(f"{name}.last", config.hidden_of(name), config.branch)
    dense("head.cell", len(config.branches) * config.branch, config.rank + 2)
    dense("head.drug", config.drug_width, config.rank + 2)
    dense("head.new", config.drug_width, config.rank + 2)
    return out


def _pool(share: Floats, x: Floats) -> Floats:
    """Weighted sum over atoms, ``[atoms]``, ``[M, atoms, width] -> [M, width]``."""
    return np.einsum("a,maw->mw", share, x, optimize=False)


def _in_blocks(x: Floats, weight: Floats) -> Floats:
    """``[M or 1, rows, in]`` times ``[M, in, out]``, a few rows at a time."""
    stack, rows, width = x.shape
    padded = np.zeros((stack, -(-rows // ATOM_BLOCK) * ATOM_BLOCK, width), dtype=np.float32)
    padded[:, :rows] = x
    out = np.matmul(padded.reshape(stack, -1, ATOM_BLOCK, width), weight[:, None])
    return out.reshape(len(weight), -1, weight.shape[-1])[:, :rows]


def cell_blocks(x: Floats) -> Floats:
    """``[C, in]`` -> ``[1, blocks, in, CELL_BLOCK]``, padded with zeros.

    Cells are columns of the products: BLAS may round a row differently depending on its position.
    """
    blocks = -(-len(x) // CELL_BLOCK)
    out = np.zeros((blocks * CELL_BLOCK, x.shape[1]), dtype=np.float32)
    out[: len(x)] = x
    return np.ascontiguousarray(out.reshape(1, blocks, CELL_BLOCK, -1).swapaxes(2, 3))
