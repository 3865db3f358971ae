"""The products of a kernel head on a GPU, with PyTorch.

`DeviceKernel.responses` has the values of `KernelHead.responses` up to rounding. Letters: B profiles of a
block, C profiles, P genes, O measured genes, K factors, L training lines, D drugs.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.drug_response.kernel.head import KERNELS, KernelHead, ProfileResponses
from scpalm.model.drug_response.kernel.profile import SPARSE, SPARSE_SHARE, GeneSetMap, rank_values
from scpalm.model.network.streams import Device

Floats = NDArray[np.float32]
# Profiles run in blocks of a fixed size, so that a profile has the same bits alone and among others.
_BLOCK_ON_GPU, _BLOCK_ON_CPU = 512, 16


class _MeasuredGenes:
    """What a block of profiles with O measured genes needs, on the device."""

    def __init__(self, gene_set: GeneSetMap, head: KernelHead, device: Device) -> None:
        genes, levels, put = gene_set.genes, gene_set.levels, device.put
        self.genes, self.mean, self.lines = put(genes), put(gene_set.mean), put(gene_set.lines.T.copy())
        self.sd, self.at_rank = put(head.profiles.factors.sd[genes]), put(rank_values(gene_set.quantiles))
        self.place = put(np.arange(len(genes)))
        self.to_scores = put(np.stack([level.to_scores for level in levels]))  # [levels, O, K]
        self.scores = put(np.stack([level.scores for level in levels]))  # [levels, K, K]
        self.inverse = put(np.stack([level.inverse for level in levels]))  # [levels, O]
        self.keep = put(np.stack([level.keep for level in levels]))  # [levels, O]
        self.log_determinant = put(np.array([level.log_determinant for level in levels])[:, None])


class DeviceKernel:
    """A kernel head whose arrays are on a device.

    Args:
        head: the kernel head.
        device: where to compute.

    Example:
        >>> kernel = DeviceKernel.on(head, "cuda:0")
        >>> kernel.responses(profiles, "expression").deviations.shape
        (4096, 223)
    """

    def __init__(self, head: KernelHead, device: Device) -> None:
        self._head, self._device = head, device
        self._block = _BLOCK_ON_GPU if device.on_gpu else _BLOCK_ON_CPU
        self._lock = Lock()  # of the stream and the tables
        self._measured: weakref.WeakKeyDictionary[GeneSetMap, _MeasuredGenes] = weakref.WeakKeyDictionary()
        factors, put = head.profiles.factors, device.put
        with device.computing():
            self._mean, self._loading = put(factors.mean), put(factors.loading.T.copy())  # [P], [K, P]
            self._feature_scale = put(head.profiles.weight / factors.sd)  # [P]
            self._lines = put(head.profiles.features.T.copy())  # [P, L]
            self._line_squares = torch.square(self._lines).sum(dim=0)  # [L]
            self._weights = {setting: put(weights) for setting, weights in head.weights.items()}  # [L, D]

    @classmethod
    def on(cls, head: KernelHead, device: str) -> DeviceKernel:
        """A kernel head on a device of PyTorch, such as ``cuda:0``."""
        return cls(head, Device(torch.device(device)))

    def responses(self, profiles: Floats, setting: str) -> ProfileResponses:
        """ProfileResponses of profiles ``[C, P]`` in log2(TPM + 1), NaN where a gene was not measured.

        Raises DeviceLostError.
        """
        out = ProfileResponses.empty(len(profiles), self._weights[setting].shape[1])
        for rows, gene_set in self._head.profiles.by_gene_set(profiles):
            with self._lock, self._device.computing():
                found = self._of_gene_set(profiles[rows], gene_set, setting)
            for name, values in found.items():
                getattr(out, name)[rows] = values
        return out

    def _of_gene_set(self, profiles: Floats, gene_set: GeneSetMap, setting: str) -> dict[str, NDArray[np.generic]]:
        tables = self._measured.get(gene_set)
        if tables is None:
            tables = self._measured[gene_set] = _MeasuredGenes(gene_set, self._head, self._device)
        parts = [self._of_block(block, tables, setting) for block in self._blocks(profiles)]
        joined = {name: torch.cat([part[name] for part in parts])[: len(profiles)] for name in parts[0]}
        arriving = {name: self._device.fetch(values) for name, values in joined.items()}
        return {name: fetched.numpy() for name, fetched in arriving.items()}

    def _blocks(self, profiles: Floats) -> Iterator[Tensor]:
        for start in range(0, len(profiles), self._block):
            part = self._device.put(profiles[start : start + self._block])
            yield torch.nn.functional.pad(part, (0, 0, 0, self._block - len(part)))

    def _of_block(self, profiles: Tensor, tables: _MeasuredGenes, setting: str) -> dict[str, Tensor]:
        """`ProfileResponses` of ``profiles [B, P]``, by name."""
        measured = profiles[:, tables.genes]
        deviation = _quantile_mapped(measured, tables) - tables.mean  # [B, O]
        similarity, nearest = (_standard(deviation / tables.sd) @ tables.lines).max(dim=1)
        noise, expected = self._posterior(deviation, tables)
        sparse = (measured > 0).double().mean(dim=1) < SPARSE_SHARE
        return {
            "noise": torch.where(sparse, SPARSE, noise),
            "distance": (1 - similarity).clamp(min=0),
            "nearest": nearest,
            "deviations": self._kernel((expected - self._mean) * self._feature_scale) @ self._weights[setting],
        }

    def _posterior(self, deviation: Tensor, tables: _MeasuredGenes) -> tuple[Tensor, Tensor]:
        """The most likely noise level ``[B]``, and the expected bulk profile ``[B, P]``."""
        projected = deviation @ tables.to_scores  # [levels, B, K]
        scores = projected @ tables.scores
        square = (torch.square(deviation) * tables.inverse[:, None]).sum(dim=2)  # [levels, B]
        explained = (projected * scores).sum(dim=2)
        noise = (-(square - explained + tables.log_determinant) / 2).argmax(dim=0)
        fitted = scores[noise, torch.arange(len(noise), device=noise.device)] @ self._loading  # [B, P]
        own = fitted[:, tables.genes]
        fitted[:, tables.genes] = own + tables.keep[noise] * (deviation - own)
        return noise, fitted + self._mean

    def _kernel(self, features: Tensor) -> Tensor:
        """``K [B, L]`` of features ``[B, P]``."""
        squares = torch.square(features).sum(dim=1)[:, None] + self._line_squares
        distance = (squares - 2 * (features @ self._lines)).clamp(min=0) / features.shape[1]
        out = torch.zeros_like(distance)
        for share, scale in KERNELS:
            out += share * torch.exp(-scale * distance)
        return out


def _quantile_mapped(profiles: Tensor, tables: _MeasuredGenes) -> Tensor:
    """`quantile_mapped` of ``profiles [B, O]``."""
    ascending, order = profiles.sort(dim=1, stable=True)
    place = tables.place
    differs = ascending[:, 1:] != ascending[:, :-1]
    first = torch.where(differs, place[1:], 0).cummax(dim=1).values
    first = torch.nn.functional.pad(first, (1, 0))
    last = torch.where(differs, place[:-1], place[-1]).flip(1).cummin(dim=1).values.flip(1)
    last = torch.cat([last, place[-1].expand(len(last), 1)], dim=1)
    return torch.empty_like(profiles).scatter_(1, order, tables.at_rank[first + last])


def _standard(profiles: Tensor) -> Tensor:
    centred = profiles - profiles.mean(dim=1, keepdim=True)
    length = torch.square(centred).sum(dim=1, keepdim=True).sqrt()
    return centred / length.clamp(min=1e-12)
