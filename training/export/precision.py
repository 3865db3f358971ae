"""Store weights with fewer bits, measure what that costs, and reject what costs too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.network.read_out import LinearReadOut
from scpalm.model.sessions.session import Tokens
from scpalm.model.sessions.torchscript import INT8_SCALE
from scpalm.training.corpus.reader import Corpus
from scpalm.training.metrics.clustering import MIN_CELLS, score_embedding

Precision = Literal["float32", "float16", "int8"]
# Small tensors that decide which code is nearest.
_EXACT = ("code_table", "point_scale", "point_shift", "encoder_position")


@dataclass(frozen=True)
class Limits:
    """How much a bundle may lose compared with float32 weights, on cells of its corpus.

    Attributes:
        code_agreement: smallest share of tokens with the same code. cosine: smallest mean cosine of h_C.
        ari_loss: largest loss of adjusted Rand index of Leiden clusters against the corpus' labels.
    """

    code_agreement: float
    cosine: float
    ari_loss: float


LIMITS: dict[Precision, Limits] = {
    "float32": Limits(0.9999, 0.9999, 0.01),
    "float16": Limits(0.98, 0.995, 0.02),
    "int8": Limits(0.95, 0.98, 0.02),
}


def stored(state: dict[str, Tensor], precision: Precision) -> dict[str, NDArray[np.generic]]:
    """Tensors as a bundle stores them; everything except large matrices stays float32.

    ``float16``: matrices in half precision. ``int8``: weights of linear layers as 8-bit integers with one scale per row
    (stored under the weight's name and ``.int8_scale``), all other matrices in half precision.
    """
    out: dict[str, NDArray[np.generic]] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            out[name] = tensor.cpu().contiguous().numpy()
            continue
        array = tensor.detach().cpu().contiguous().numpy()
        matrix = array.ndim >= 2 and name not in _EXACT and precision != "float32"
        if matrix and precision == "int8" and array.ndim == 2 and name.endswith(".weight"):
            scale = np.maximum(np.abs(array).max(axis=1), 1e-12).astype(np.float32) / np.float32(127)
            out[name] = np.rint(array / scale[:, None]).astype(np.int8)
            out[name + INT8_SCALE] = scale
        else:
            out[name] = array.astype(np.float16 if matrix else np.float32)
    return out


@dataclass(frozen=True, eq=False)
class Exact:
    """The network in float32, to compare a bundle with."""

    network: InferenceNetwork
    read_out: LinearReadOut

    @torch.inference_mode()
    def run(self, corpus: Corpus, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``h_C [B, D]`` and codes ``[B, N]``."""
        h, codes = [], []
        for start in range(0, len(chosen), 256):
            tokens = self.read_out(corpus.batch(chosen[start : start + 256]))
            part = self.network.nearest(tokens * self.network.read_scale + self.network.read_shift)
            codes.append(part.numpy())
            h.append(self.network.cell_encoder.embed(self.network.code_tokens[part]).numpy())
        return np.concatenate(h), np.concatenate(codes)


def loss_of_precision(exact: Exact, corpus: Corpus, chosen: NDArray[np.int64], tokens: Tokens) -> dict[str, float]:
    """Compare a bundle's h_C and codes for the ``chosen`` cells with the float32 network.

    ``ari_before`` and ``ari_after`` are included if these cells have two or more labels.
    """
    h, codes = tokens.h_C, tokens.codes
    reference, exact_codes = exact.run(corpus, chosen)
    same = exact_codes == codes
    cosine = (h * reference).sum(1) / (np.linalg.norm(h, axis=1) * np.linalg.norm(reference, axis=1))
    equal = same.all(axis=1)
    values = {
        "max_abs_difference": float(np.abs(h - reference)[equal].max(initial=0.0)),
        "max_abs_difference_all_cells": float(np.abs(h - reference).max()),
        "code_agreement": float(same.mean()),
        "mean_cosine": float(cosine.mean()),
        "min_cosine": float(cosine.min()),
    }
    labels = corpus.obs["cell_type"].to_numpy()[chosen].astype(str)
    labelled = labels != ""
    if labelled.sum() >= MIN_CELLS and len(np.unique(labels[labelled])) > 1:
        for when, array in (("before", reference), ("after", h)):
            rows = score_embedding(array[labelled].astype(np.float64), labels[labelled], seeds=range(5))
            values[f"ari_{when}"] = float(np.mean([float(row["ari"]) for row in rows]))
    return values


def beyond(values: dict[str, float], precision: Precision) -> str:
    """Describe the limit that is exceeded; "" if none is."""
    limits = LIMITS[precision]
    if values["code_agreement"] < limits.code_agreement:
        return f"{values['code_agreement']:.4f} of the codes agree, the limit is {limits.code_agreement}"
    if values["mean_cosine"] < limits.cosine:
        return f"the mean cosine of h_C is {values['mean_cosine']:.4f}, the limit is {limits.cosine}"
    loss = values.get("ari_before", 0.0) - values.get("ari_after", 0.0)
    return f"ARI falls by {loss:.3f}, the limit is {limits.ari_loss}" if loss > limits.ari_loss else ""


def parity_cells(corpus: Corpus, most: int) -> NDArray[np.int64]:
    """Rows of at most ``most`` cells: held-out ones first, then training cells."""
    return np.concatenate([corpus.held_out_rows, corpus.train_rows])[:most]


def as_rows(corpus: Corpus, chosen: NDArray[np.int64]) -> Rows:
    """Cells of a corpus as input of a session."""
    cells = [corpus.cell(int(row)) for row in chosen]
    return Rows(
        np.concatenate([[0], np.cumsum([len(genes) for genes, _ in cells])]).astype(np.int64),
        np.concatenate([genes for genes, _ in cells]),
        np.concatenate([values for _, values in cells]),
        tuple(GeneSet(measured) for measured in corpus.measured),
        corpus.obs["file"].to_numpy()[chosen].astype(np.int32),
    )
